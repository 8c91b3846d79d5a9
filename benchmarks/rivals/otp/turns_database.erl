%% Connections to Postgres with prepared statements. All of them go with this process, which its supervisor starts again.
-module(turns_database).
-behaviour(gen_server).
-export([start_link/0, accept/3, finish/3, ended/2, prepare/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(CONNECTIONS, 16).
-define(KEY, turns_connections).
-define(SCHEMA, [
    "CREATE SEQUENCE IF NOT EXISTS turn_event",
    "CREATE TABLE IF NOT EXISTS turn (id text PRIMARY KEY, conversation text NOT NULL, content text NOT NULL,"
    " event text, reply text, number bigint)",
    "CREATE INDEX IF NOT EXISTS turn_ended ON turn (conversation, number) WHERE event IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS turn_open ON turn (id) WHERE event IS NULL",
    "UPDATE turn SET event = 'agent-error', number = nextval('turn_event') WHERE event IS NULL"
]).
-define(STATEMENTS, [
    {"accept", "INSERT INTO turn (id, conversation, content) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING"
               " RETURNING id"},
    {"finish", "UPDATE turn SET event = $2, reply = $3, number = nextval('turn_event') WHERE id = $1"
               " RETURNING number::text"},
    {"ended", "SELECT id, event, number::text FROM turn WHERE conversation = $1 AND number > $2::text::bigint"
              " AND event IS NOT NULL ORDER BY number"}
]).

start_link() -> gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% Durable when it returns; `false`: it was here already.
accept(Id, Conversation, Content) ->
    rows("accept", [Id, Conversation, Content]) =/= [].

%% The number of its terminal event.
finish(Id, Event, Reply) ->
    [[{text, Number}]] = rows("finish", [Id, Event, Reply]),
    Number.

%% What ended behind a number: {Id, Event, Number}.
ended(Conversation, Number) ->
    [{Id, Event, At} || [{_, Id}, {_, Event}, {_, At}] <- rows("ended", [Conversation, Number])].

rows(Name, Parameters) ->
    {Connections, Counter} = persistent_term:get(?KEY),
    Next = atomics:add_get(Counter, 1, 1) rem ?CONNECTIONS + 1,
    {ok, {_, Rows}} = pgsql:execute(element(Next, Connections), Name, Parameters),
    Rows.

init([]) ->
    [First | _] = Connections = [connect() || _ <- lists:seq(1, ?CONNECTIONS)],
    [{ok, [_]} = pgsql:squery(First, Query) || Query <- ?SCHEMA],
    rpc:pmap({?MODULE, prepare}, [], Connections),  % side by side: the driver's small writes wait for each other
    persistent_term:put(?KEY, {list_to_tuple(Connections), atomics:new(1, [])}),
    {ok, none}.

prepare(Connection) ->
    [{ok, _, _, _} = pgsql:prepare(Connection, Name, Query) || {Name, Query} <- ?STATEMENTS].

connect() ->
    {ok, Connection} = pgsql:connect([
        {host, "127.0.0.1"},
        {port, list_to_integer(os:getenv("RIVAL_DATABASE_PORT"))},
        {user, "lobu"},
        {password, ""},
        {database, "postgres"},
        {as_binary, true}
    ]),
    link(Connection),
    Connection.

handle_call(_, _, State) -> {reply, ok, State}.
handle_cast(_, State) -> {noreply, State}.
handle_info(_, State) -> {noreply, State}.
