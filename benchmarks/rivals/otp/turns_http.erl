%% HTTP/1.1 with the parser of gen_tcp: a process for each connection.
-module(turns_http).
-behaviour(supervisor).
-export([start_link/1, init/1, start_acceptor/1, accept/1, serve/1, stream/1]).

-define(IDLE_MS, 1000).
-define(HERE, "/api/v1/agents").

start_link(Acceptors) -> supervisor:start_link({local, ?MODULE}, ?MODULE, Acceptors).

init(Acceptors) ->
    {ok, Listener} = gen_tcp:listen(list_to_integer(os:getenv("RIVAL_PORT")), [
        binary, {ip, {127, 0, 0, 1}}, {active, false}, {packet, http_bin}, {reuseaddr, true}, {nodelay, true},
        {backlog, 4096}
    ]),
    Child = fun(Number) -> #{id => Number, start => {?MODULE, start_acceptor, [Listener]}} end,
    {ok, {#{strategy => one_for_one}, [Child(Number) || Number <- lists:seq(1, Acceptors)]}}.

start_acceptor(Listener) -> {ok, proc_lib:spawn_link(?MODULE, accept, [Listener])}.

accept(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Connection = proc_lib:spawn(?MODULE, serve, [Socket]),
    case gen_tcp:controlling_process(Socket, Connection) of
        ok -> Connection ! yours;
        {error, _} -> exit(Connection, kill)
    end,
    accept(Listener).

serve(Socket) ->
    receive yours -> requests(Socket) end.

%% One after another, until the client goes.
requests(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, {http_request, Method, {abs_path, Path}, _}} ->
            Headers = headers(Socket, #{}),
            Body = body(Socket, Headers),
            [Way | _] = binary:split(Path, <<"?">>),
            answer(Method, binary:split(Way, <<"/">>, [global]), Headers, Body, Socket);
        {error, _} ->
            gen_tcp:close(Socket)
    end.

headers(Socket, Found) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, {http_header, _, Name, _, Value}} -> headers(Socket, Found#{lower(Name) => Value});
        {ok, http_eoh} -> Found
    end.

lower(Name) when is_atom(Name) -> Name;
lower(Name) -> string:lowercase(Name).

body(Socket, #{'Content-Length' := Length}) when Length =/= <<"0">> ->
    ok = inet:setopts(Socket, [{packet, raw}]),
    {ok, Body} = gen_tcp:recv(Socket, binary_to_integer(Length)),
    ok = inet:setopts(Socket, [{packet, http_bin}]),
    Body;
body(_, _) ->
    <<>>.

answer('POST', [_, <<"api">>, <<"v1">>, <<"agents">>], Headers, _, Socket) ->
    case may(Headers, list_to_binary(os:getenv("RIVAL_KEY"))) of
        true ->
            Name = binary:encode_hex(crypto:strong_rand_bytes(16)),
            say(Socket, <<"201 Created">>, #{success => true, agentId => Name, token => token(Name)});
        false ->
            refuse(Socket)
    end;
answer('POST', [_, <<"api">>, <<"v1">>, <<"agents">>, Name, <<"messages">>], Headers, Body, Socket) ->
    case may(Headers, token(Name)) of
        true ->
            Message = #{<<"content">> := Content} = jiffy:decode(Body, [return_maps]),
            Id = maps:get(<<"messageId">>, Message, binary:encode_hex(crypto:strong_rand_bytes(16))),
            case turns_database:accept(Id, Name, Content) of
                true -> turns_conversation:run(turns_directory:conversation(Name), Id, Content);
                false -> ok
            end,
            say(Socket, <<"200 OK">>, #{success => true, messageId => Id});
        false ->
            refuse(Socket)
    end;
answer('GET', [_, <<"api">>, <<"v1">>, <<"agents">>, Name, <<"events">>], Headers, _, Socket) ->
    case may(Headers, token(Name)) of
        true ->
            ok = turns_conversation:read(turns_directory:conversation(Name)),
            Head = <<"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n">>,
            Connected = turns_conversation:frame(<<"connected">>, none, #{}),
            Missed = [turns_conversation:frame(Event, Number, #{messageId => Id})
                      || Behind <- maps:values(maps:with([<<"last-event-id">>], Headers)),
                         {Id, Event, Number} <- turns_database:ended(Name, Behind)],
            ok = gen_tcp:send(Socket, [Head, chunk([Connected | Missed])]),
            ok = inet:setopts(Socket, [{packet, raw}, {active, once}]),
            proc_lib:hibernate(?MODULE, stream, [Socket]);
        false ->
            refuse(Socket)
    end;
answer(_, _, _, _, Socket) ->
    say(Socket, <<"404 Not Found">>, #{success => false, error => <<"there is no such path">>}).

stream(Socket) ->
    receive
        {event, Data} ->
            case gen_tcp:send(Socket, chunk(Data)) of
                ok -> stream(Socket);
                {error, _} -> gen_tcp:close(Socket)
            end;
        {tcp_closed, Socket} ->
            ok;
        {tcp_error, Socket, _} ->
            ok
    after ?IDLE_MS ->
        proc_lib:hibernate(?MODULE, stream, [Socket])
    end.

chunk(Data) -> [integer_to_binary(iolist_size(Data), 16), <<"\r\n">>, Data, <<"\r\n">>].

token(Name) ->
    binary:encode_hex(crypto:mac(hmac, sha256, list_to_binary(os:getenv("RIVAL_KEY")), Name)).

may(#{'Authorization' := Said}, Wanted) ->
    Right = <<"Bearer ", Wanted/binary>>,
    byte_size(Said) =:= byte_size(Right) andalso crypto:hash_equals(Said, Right);
may(_, _) ->
    false.

refuse(Socket) ->
    say(Socket, <<"401 Unauthorized">>, #{success => false, error => <<"the token is not right">>}).

say(Socket, Status, Data) ->
    Body = jiffy:encode(Data),
    Length = integer_to_binary(iolist_size(Body)),
    Head = [<<"HTTP/1.1 ">>, Status, <<"\r\ncontent-type: application/json\r\ncontent-length: ">>, Length],
    case gen_tcp:send(Socket, [Head, <<"\r\n\r\n">>, Body]) of
        ok -> requests(Socket);
        {error, _} -> gen_tcp:close(Socket)
    end.
