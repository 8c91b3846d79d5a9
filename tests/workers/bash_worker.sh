#!/usr/bin/env bash
# A worker in bash, to show that the worker protocol needs no SDK: replies with what it was told before and the message.
# Reads JSON by pattern, which is enough for ids and for text without quotes; a real worker would use a JSON parser.

link=$LOBU_WORKER_FD
last=nothing

field() { # field NAME LINE: the string value of "NAME" in LINE
    local pattern="\"$1\":\"([^\"]*)\""
    [[ $2 =~ $pattern ]] && printf '%s' "${BASH_REMATCH[1]}"
}

while IFS= read -r line <&"$link"; do
    case $(field type "$line") in
        hello)
            printf '{"type":"ready","protocol":1,"name":"bash","version":"1","capabilities":[]}\n' >&"$link"
            ;;
        turn)
            run=$(field runId "$line")
            content=$(field content "$line")
            echo "turn $run"
            printf '{"type":"delta","runId":"%s","text":"before: %s, "}\n' "$run" "$last" >&"$link"
            printf '{"type":"delta","runId":"%s","text":"now: %s"}\n' "$run" "$content" >&"$link"
            printf '{"type":"complete","runId":"%s"}\n' "$run" >&"$link"
            last=$content
            ;;
        shutdown)
            exit 0
            ;;
    esac
done
