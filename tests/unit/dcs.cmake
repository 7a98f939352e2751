foreach(module kv lease session open)
    regent_unit_test(test_dcs_state_${module}
        SOURCES test_dcs_state_${module}.c dcs_state_script.c
        LIBS regent_dcs)
endforeach()
regent_unit_test(test_dcs_state_random LIBS regent_dcs TIMEOUT 300)
