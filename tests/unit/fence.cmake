foreach(module guard tree)
    regent_unit_test(test_fence_${module} LIBS regent_fence_common regent_base)
endforeach()
# Real processes: the fence itself and a fake postmaster.
regent_unit_test(test_fence_client SOURCES test_fence_client.c test_fence_world.c
    LIBS regent_fence_client regent_base)
regent_unit_test(test_fence_freeze SOURCES test_fence_freeze.c test_fence_world.c
    LIBS regent_fence_client regent_base)
foreach(test test_fence_client test_fence_freeze)
    target_compile_definitions(${test} PRIVATE
        FENCE_PROGRAM="$<TARGET_FILE:regent-fence>" FAKE_POSTGRES="$<TARGET_FILE:fake_postgres>")
    add_dependencies(${test} regent-fence fake_postgres)
    set_tests_properties(${test} PROPERTIES RUN_SERIAL TRUE) # bounds in real time
endforeach()
regent_unit_test(test_fence_vip LIBS regent_fence_common)
regent_unit_test(test_fence_watchdog LIBS regent_agent)
