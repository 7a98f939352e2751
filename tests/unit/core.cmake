# The decision core. Tables of text are in decide/.
foreach(module view syncrep exhaustive many)
    regent_unit_test(test_core_${module} LIBS regent_agent_core)
endforeach()
regent_unit_test(test_core_decide LIBS regent_agent_core)
target_compile_definitions(test_core_decide PRIVATE DECIDE_DIR="${CMAKE_CURRENT_SOURCE_DIR}/decide")
# Several nodes in an abstract world, seeded.
set(core_sim ${CMAKE_SOURCE_DIR}/tests/sim)
add_executable(core_sim ${core_sim}/core_sim.c ${core_sim}/core_world_agent.c
    ${core_sim}/core_world_pg.c ${core_sim}/core_world_store.c)
target_link_libraries(core_sim PRIVATE regent_agent_core)
foreach(mode on strict quorum off)
    add_test(NAME core_sim_${mode} COMMAND core_sim --mode ${mode} --seeds 60)
    add_test(NAME core_sim_${mode}_5 COMMAND core_sim --mode ${mode} --seeds 20 --nodes 5 --first 1000)
    set_tests_properties(core_sim_${mode} core_sim_${mode}_5 PROPERTIES TIMEOUT 7200 LABELS sim)
endforeach()
