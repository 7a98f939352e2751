# raft_world, raft_script: cores in virtual time, also for tests/unit/test_dcs_raft_*.
add_library(raft_world STATIC
    ${CMAKE_SOURCE_DIR}/tests/sim/raft_script.c
    ${CMAKE_SOURCE_DIR}/tests/sim/raft_world.c
    ${CMAKE_SOURCE_DIR}/tests/sim/raft_world_check.c
    ${CMAKE_SOURCE_DIR}/tests/sim/raft_world_disk.c
    ${CMAKE_SOURCE_DIR}/tests/sim/raft_world_snapshot.c)
target_link_libraries(raft_world PUBLIC regent_dcs)

add_executable(raft_sim raft_sim.c)
target_link_libraries(raft_sim PRIVATE raft_world)
# Sanitizers make it ten times slower; CI without them runs the thousand.
if(REGENT_SANITIZE OR REGENT_COVERAGE)
    set(seeds 1-100)
else()
    set(seeds 1-1000)
endif()
add_test(NAME raft_sim COMMAND raft_sim --seeds ${seeds})
add_test(NAME raft_sim_repeat COMMAND raft_sim --repeat 1-5)
set_tests_properties(raft_sim raft_sim_repeat PROPERTIES TIMEOUT 7200 LABELS sim)
