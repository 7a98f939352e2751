regent_unit_test(test_proto_mp LIBS regent_proto)
regent_unit_test(test_proto_msg SOURCES test_proto_msg.c proto_random.c LIBS regent_proto)
