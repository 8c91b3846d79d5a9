%% Which process has which conversation. Found in a table by anybody, started by one process only.
-module(turns_directory).
-behaviour(gen_server).
-export([start_link/0, start_supervisor/0, conversation/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(CHILDREN, turns_conversations).

start_supervisor() -> supervisor:start_link({local, ?CHILDREN}, ?MODULE, supervisor).

start_link() -> gen_server:start_link({local, ?MODULE}, ?MODULE, directory, []).

conversation(Name) ->
    case ets:lookup(?MODULE, Name) of
        [{_, Pid}] -> Pid;
        [] -> gen_server:call(?MODULE, {start, Name})
    end.

init(supervisor) ->
    Child = #{id => conversation, start => {turns_conversation, start_link, []}, restart => temporary},
    {ok, {#{strategy => simple_one_for_one}, [Child]}};
init(directory) ->
    ets:new(?MODULE, [named_table, protected, {read_concurrency, true}]),
    {ok, #{}}.

handle_call({start, Name}, _, Monitors) ->
    case ets:lookup(?MODULE, Name) of
        [{_, Pid}] ->
            {reply, Pid, Monitors};
        [] ->
            {ok, Pid} = supervisor:start_child(?CHILDREN, [Name]),
            ets:insert(?MODULE, {Name, Pid}),
            {reply, Pid, Monitors#{monitor(process, Pid) => Name}}
    end.

handle_cast(_, Monitors) -> {noreply, Monitors}.

handle_info({'DOWN', Monitor, process, _, _}, Monitors) ->
    {Name, Left} = maps:take(Monitor, Monitors),
    ets:delete(?MODULE, Name),
    {noreply, Left}.
