# Whole nodes: production DCS and engine over models of disk, network, fence and PostgreSQL.
add_executable(node_sim
    node_act.c node_check.c node_client.c node_daemon.c node_disk.c node_faults.c node_fence.c
    node_net.c node_orders.c node_pg.c node_rush.c node_see.c node_setup.c node_shrink.c node_sick.c node_sim.c node_wal.c node_watch.c node_world.c
    ${CMAKE_SOURCE_DIR}/tests/unit/scratch.c)
target_link_libraries(node_sim PRIVATE regent_agent)

# Sanitizers make it ten times slower; CI without them runs the thousand. In halves, for two cores.
if(REGENT_SANITIZE OR REGENT_COVERAGE)
    set(halves 1-40 41-80)
    set(of_seven 1-10)
    set(of_two 1-20)
else()
    set(halves 1-500 501-1000)
    set(of_seven 1-60)
    set(of_two 1-150)
endif()
foreach(seeds ${halves})
    add_test(NAME node_sim_${seeds} COMMAND node_sim --seeds ${seeds})
    list(APPEND tests node_sim_${seeds})
endforeach()
add_test(NAME node_sim_seven COMMAND node_sim --nodes 7 --seeds ${of_seven})
list(APPEND tests node_sim_seven)
add_test(NAME node_sim_sick COMMAND node_sim --scenario sick --seeds ${of_two})
add_test(NAME node_sim_rush COMMAND node_sim --scenario rush --seeds ${of_two})
list(APPEND tests node_sim_sick node_sim_rush)
add_test(NAME node_sim_repeat COMMAND node_sim --repeat 1-10)
list(APPEND tests node_sim_repeat)
add_test(NAME node_sim_layout COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/layout $<TARGET_FILE:node_sim> 1-10)
add_test(NAME node_sim_shrink COMMAND node_sim --mutation fence_idle --seeds 1-400 --shrink)
set_tests_properties(node_sim_shrink PROPERTIES PASS_REGULAR_EXPRESSION "of [0-9]+ faults are enough: --only")
list(APPEND tests node_sim_layout node_sim_shrink)

# Can it see? Each of these is broken on purpose, and some seed must tell.
foreach(sight mix,fence_idle mix,no_deadline fence,no_shortening mix,no_seal mix,no_confirm late,no_sync_guard sick,no_damping
        outage,seal_in_replay)
    string(REPLACE "," ";" sight ${sight})
    list(GET sight 0 scenario)
    list(GET sight 1 mutation)
    add_test(NAME node_sim_${mutation}
        COMMAND node_sim --scenario ${scenario} --mutation ${mutation} --seeds 1-400)
    list(APPEND tests node_sim_${mutation})
endforeach()
set_tests_properties(${tests} PROPERTIES TIMEOUT 7200 LABELS sim)
