%% A conversation: its readers, its worker (a port), the turn that runs and those that wait.
-module(turns_conversation).
-behaviour(gen_server).
-export([start_link/1, read/1, run/3, frame/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(HIBERNATE_AFTER, 1000).
-define(LINE_BYTES, 1048576).

-record(state, {name, worker, readers = [], running, pieces = [], waiting = queue:new()}).

start_link(Name) -> gen_server:start_link(?MODULE, Name, [{hibernate_after, ?HIBERNATE_AFTER}]).

%% The caller gets {event, Data} from now on, until it ends.
read(Pid) -> gen_server:call(Pid, read).

run(Pid, Id, Text) -> gen_server:cast(Pid, {run, Id, Text}).

frame(Event, none, Data) ->
    [<<"event: ">>, Event, <<"\ndata: ">>, jiffy:encode(Data), <<"\n\n">>];
frame(Event, Number, Data) ->
    [<<"event: ">>, Event, <<"\nid: ">>, Number, <<"\ndata: ">>, jiffy:encode(Data), <<"\n\n">>].

init(Name) ->
    process_flag(trap_exit, true),
    {ok, #state{name = Name}}.

handle_call(read, {Reader, _}, State = #state{readers = Readers}) ->
    monitor(process, Reader),
    {reply, ok, State#state{readers = [Reader | Readers]}, hibernate}.

handle_cast({run, Id, Text}, State = #state{running = undefined}) ->
    {noreply, begin_turn(Id, Text, State)};
handle_cast({run, Id, Text}, State = #state{waiting = Waiting}) ->
    {noreply, State#state{waiting = queue:in({Id, Text}, Waiting)}}.

handle_info({Worker, {data, {eol, Line}}}, State = #state{worker = Worker}) ->
    {noreply, said(jiffy:decode(Line, [return_maps]), State)};
handle_info({Worker, {exit_status, Status}}, State = #state{worker = Worker}) ->
    Words = io_lib:format("the worker ended with status ~b", [Status]),
    {noreply, finish(<<"agent-error">>, iolist_to_binary(Words), State#state{worker = undefined})};
handle_info({'DOWN', _, process, Reader, _}, State = #state{readers = Readers}) ->
    {noreply, State#state{readers = lists:delete(Reader, Readers)}};
handle_info(_, State) ->  % of ports that have ended
    {noreply, State}.

begin_turn(Id, Text, State) ->
    Ready = #state{worker = Worker} = with_worker(State),
    port_command(Worker, [jiffy:encode(#{text => Text}), $\n]),
    Ready#state{running = Id, pieces = []}.

with_worker(State = #state{worker = undefined}) ->
    Arguments = ["-S", "-E", os:getenv("RIVAL_WORKER")],
    Options = [{args, Arguments}, {line, ?LINE_BYTES}, binary, exit_status, use_stdio],
    State#state{worker = open_port({spawn_executable, os:getenv("RIVAL_PYTHON")}, Options)};
with_worker(State) ->
    State.

said(#{<<"delta">> := Piece}, State = #state{running = Id, pieces = Pieces}) ->
    publish(frame(<<"output">>, none, #{content => Piece, messageId => Id}), State),
    State#state{pieces = [Piece | Pieces]};
said(#{<<"done">> := true}, State = #state{pieces = Pieces}) ->
    finish(<<"complete">>, iolist_to_binary(lists:reverse(Pieces)), State).

finish(_, _, State = #state{running = undefined}) ->
    State;
finish(Event, Reply, State = #state{running = Id, waiting = Waiting}) ->
    Number = turns_database:finish(Id, Event, Reply),
    publish(frame(Event, Number, #{messageId => Id}), State),
    Idle = State#state{running = undefined, pieces = []},
    case queue:out(Waiting) of
        {{value, {Next, Text}}, Left} -> begin_turn(Next, Text, Idle#state{waiting = Left});
        {empty, _} -> Idle
    end.

publish(Data, #state{readers = Readers}) ->
    [Reader ! {event, Data} || Reader <- Readers],
    ok.
