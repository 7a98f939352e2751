add_executable(state_bench state_bench.c)
target_link_libraries(state_bench PRIVATE regent_dcs)
