add_executable(state_bench state_bench.c)
target_link_libraries(state_bench PRIVATE regent_dcs)

# The load generator; tests/bench/dcs starts the members and runs it.
add_executable(dcs_load dcs_load.c)
target_link_libraries(dcs_load PRIVATE regent_proto)
set_target_properties(dcs_load PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
