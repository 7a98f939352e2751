foreach(module kv lease session open query)
    regent_unit_test(test_dcs_state_${module}
        SOURCES test_dcs_state_${module}.c dcs_state_script.c
        LIBS regent_dcs)
endforeach()
regent_unit_test(test_dcs_state_random LIBS regent_dcs)
foreach(module raft_core raft_recall raft_frame raft_log log_store)
    regent_unit_test(test_dcs_${module} LIBS regent_dcs)
endforeach()
target_link_libraries(test_dcs_raft_core PRIVATE raft_world) # tests/sim/raft.cmake
target_link_libraries(test_dcs_raft_recall PRIVATE raft_world)

foreach(module access compare gate heard intake latency node read_index renew watch member)
    regent_unit_test(test_dcs_${module} LIBS regent_dcs)
endforeach()
