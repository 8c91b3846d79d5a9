%% The service as an OTP application would be: a tree of supervisors, a process for each connection and each
%% conversation. `turns:main()` starts it; what it needs is in the environment.
-module(turns).
-behaviour(supervisor).
-export([main/0, init/1]).

-define(ACCEPTORS, 8).

main() ->
    {ok, _} = supervisor:start_link({local, ?MODULE}, ?MODULE, []),
    receive stop -> ok end.

%% Database first: it fails what was under way, and nobody may connect before that.
init([]) ->
    Children = [
        #{id => database, start => {turns_database, start_link, []}},
        #{id => conversations, start => {turns_directory, start_supervisor, []}, type => supervisor},
        #{id => directory, start => {turns_directory, start_link, []}},
        #{id => http, start => {turns_http, start_link, [?ACCEPTORS]}}
    ],
    {ok, {#{strategy => rest_for_one, intensity => 5, period => 10}, Children}}.
