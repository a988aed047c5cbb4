import com.amazonaws.athena.connector.lambda.data.Block;
import com.amazonaws.athena.connector.lambda.data.BlockAllocatorImpl;
import com.amazonaws.athena.connector.lambda.data.BlockUtils;
import com.amazonaws.athena.connector.lambda.data.SchemaBuilder;
import com.amazonaws.athena.connector.lambda.request.FederationResponse;
import com.amazonaws.athena.connector.lambda.request.PingRequest;
import com.amazonaws.athena.connector.lambda.request.PingResponse;
import com.amazonaws.athena.connector.lambda.security.FederatedIdentity;
import com.amazonaws.athena.connector.lambda.serde.VersionedObjectMapperFactory;
import com.amazonaws.athena.connector.lambda.udf.UserDefinedFunctionRequest;
import com.amazonaws.athena.connector.lambda.udf.UserDefinedFunctionResponse;
import com.amazonaws.athena.connector.lambda.udf.UserDefinedFunctionType;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import org.apache.arrow.vector.types.Types;
import org.apache.arrow.vector.types.pojo.Schema;

/**
 * Athena's side of a user-defined function, by the SDK that AWS publishes: writes the requests that Athena sends and reads
 * what the function answers.
 *
 * <p>One JSON request a line on stdin, one JSON answer a line on stdout, {"error": ...} when it failed:
 * <pre>
 *   {"do": "ping", "version": 5}                                            -> the request, as JSON
 *   {"do": "call", "version": 5, "method": "m", "rows": [["a", null], ...]} -> the request, as JSON; columns are varchar,
 *                                                    varbinary where the first row has {"base64": ...}
 *   {"do": "read", "version": 5, "text": ...}                               -> what the answer says
 * </pre>
 */
public final class AthenaPeer {
    private static final ObjectMapper PLAIN = new ObjectMapper();
    private static final FederatedIdentity WHO =
            new FederatedIdentity("arn:aws:iam::123456789012:role/analyst", "123456789012", Map.of(), List.of(), Map.of());

    private AthenaPeer() {}

    public static void main(String[] arguments) throws Exception {
        PrintStream answers = System.out;
        System.setOut(System.err); // whatever the SDK prints is no answer
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in));
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            ObjectNode answer = PLAIN.createObjectNode();
            try (BlockAllocatorImpl allocator = new BlockAllocatorImpl()) {
                answer.set("answer", answer(PLAIN.readTree(line), allocator));
            } catch (Exception error) { // whatever it is, the test reports it
                answer.put("error", error.toString());
            }
            answers.println(PLAIN.writeValueAsString(answer));
            answers.flush();
        }
    }

    private static JsonNode answer(JsonNode request, BlockAllocatorImpl allocator) throws Exception {
        ObjectMapper mapper = VersionedObjectMapperFactory.create(allocator, request.get("version").asInt());
        switch (request.get("do").asText()) {
            case "ping":
                return PLAIN.readTree(mapper.writeValueAsString(new PingRequest(WHO, "lambda", "query-1")));
            case "call":
                return PLAIN.readTree(mapper.writeValueAsString(call(request, allocator)));
            case "read":
                return read(mapper.readValue(request.get("text").asText(), FederationResponse.class));
            default:
                throw new IllegalArgumentException("unknown request " + request);
        }
    }

    private static UserDefinedFunctionRequest call(JsonNode request, BlockAllocatorImpl allocator) {
        JsonNode rows = request.get("rows");
        int columns = request.get("columns").asInt();
        SchemaBuilder schema = SchemaBuilder.newBuilder();
        for (int column = 0; column < columns; column++) {
            JsonNode first = rows.isEmpty() ? PLAIN.nullNode() : rows.get(0).get(column);
            if (first.isObject()) {
                schema.addField(String.valueOf(column), Types.MinorType.VARBINARY.getType());
            } else {
                schema.addStringField(String.valueOf(column));
            }
        }
        Block block = allocator.createBlock(schema.build());
        block.setRowCount(rows.size());
        for (int row = 0; row < rows.size(); row++) {
            for (int column = 0; column < columns; column++) {
                JsonNode value = rows.get(row).get(column);
                BlockUtils.setValue(block.getFieldVector(String.valueOf(column)), row, plain(value));
            }
        }
        Schema output = SchemaBuilder.newBuilder().addStringField("result").build();
        String method = request.get("method").asText();
        return new UserDefinedFunctionRequest(WHO, block, output, method, UserDefinedFunctionType.SCALAR);
    }

    private static Object plain(JsonNode value) {
        if (value.isNull()) {
            return null;
        }
        return value.isObject() ? Base64.getDecoder().decode(value.get("base64").asText()) : value.asText();
    }

    private static JsonNode read(FederationResponse response) {
        ObjectNode said = PLAIN.createObjectNode();
        if (response instanceof PingResponse) {
            PingResponse ping = (PingResponse) response;
            said.put("catalogName", ping.getCatalogName()).put("queryId", ping.getQueryId());
            said.put("sourceType", ping.getSourceType()).put("capabilities", ping.getCapabilities());
            return said.put("serDeVersion", ping.getSerDeVersion());
        }
        UserDefinedFunctionResponse call = (UserDefinedFunctionResponse) response;
        said.put("methodName", call.getMethodName()).put("schema", call.getRecords().getSchema().toString());
        ArrayNode values = said.putArray("values");
        for (int row = 0; row < call.getRecords().getRowCount(); row++) {
            Object value = call.getRecords().getFieldVector("result").getObject(row);
            values.add(value == null ? null : value.toString());
        }
        return said;
    }
}
