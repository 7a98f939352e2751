foreach(module kv lease session)
    regent_unit_test(test_dcs_state_${module}
        SOURCES test_dcs_state_${module}.c dcs_state_script.c
        LIBS regent_dcs)
endforeach()
