foreach(module reload import load refuse env secrets slots template)
    regent_unit_test(test_conf_${module} SOURCES test_conf_${module}.c LIBS regent_conf)
endforeach()
regent_unit_test(test_conf_dynamic LIBS regent_conf regent_proto)
