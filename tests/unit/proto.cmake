regent_unit_test(test_proto_mp LIBS regent_proto)
regent_unit_test(test_proto_msg SOURCES test_proto_msg.c proto_random.c LIBS regent_proto)
foreach(module pki conn client)
    regent_unit_test(test_proto_${module} SOURCES test_proto_${module}.c proto_fixture.c LIBS regent_proto)
endforeach()
regent_unit_test(test_proto_doc SOURCES test_proto_doc.c proto_random.c LIBS regent_proto
    ARGS ${CMAKE_SOURCE_DIR}/docs/PROTOCOL.md)
