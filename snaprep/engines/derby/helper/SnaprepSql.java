import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.Reader;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Types;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * SQL over stdin and stdout: named connections in one JVM, each with its own thread, so one that hangs blocks no other.
 *
 * A request is a line: id, verb, connection and arguments, separated by spaces. All but id and verb are base64 of
 * UTF-8 text; "~" stands for null and "=" for the empty text, neither of which base64 can produce.
 *
 *   open      name url [property value]...    close    name            drop  name
 *   execute   name sql [parameter]...         prepare  name key sql    run   name key [parameter]...
 *   begin     name                            commit   name            rollback  name
 *   digest    name sql
 *   lastwords bound_ms [name key]...
 *
 * A reply is a line, in whatever order the work ends:
 *   id ok  elapsed_us columns [cell]...                  columns is 0 when there is no result set
 *   id err elapsed_us [sqlstate code message]...         the whole chain; sqlstate "~" means no SQLException
 *
 * `digest` answers with one row for all rows of a query: how many there are, and the sum of their SHA-256 modulo 2^256,
 * which does not depend on their order. Rows are read one by one and values of any length piece by piece.
 *
 * At the end of stdin the statements named by the latest `lastwords` run once, side by side, for at most its bound.
 */
public final class SnaprepSql {
    private static final OutputStream OUT = System.out;
    private static final int PIECE = 16384; // bytes or characters of a long value that are in memory at a time
    private static final Map<String, Worker> WORKERS = new HashMap<>();
    private static long lastWordsBoundMs = 0;
    private static List<String> lastWords = new ArrayList<>();

    public static void main(String[] args) throws Exception {
        System.setOut(System.err); // stdout carries replies and nothing else
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        try {
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                accept(line.split(" "));
            }
            speakLastWords();
        } finally {
            Runtime.getRuntime().halt(0); // hung threads and shutdown hooks have no say
        }
    }

    private static void accept(String[] words) {
        Request request = new Request(words);
        Worker worker = WORKERS.get(request.name);
        switch (request.verb) {
            case "open":
                if (worker == null) {
                    worker = new Worker(request.name);
                    WORKERS.put(request.name, worker);
                    worker.start();
                }
                worker.queue.add(request);
                break;
            case "drop": // the thread may sit in a socket read for ever; it dies with the JVM
                WORKERS.remove(request.name);
                if (worker != null) {
                    worker.dropped = true;
                    worker.interrupt();
                }
                request.reply("ok", 0, "0");
                break;
            case "lastwords":
                lastWordsBoundMs = Long.parseLong(request.name);
                lastWords = request.arguments;
                request.reply("ok", 0, "0");
                break;
            default:
                if (worker == null) {
                    request.fail(0, new IllegalStateException("no connection has this name"));
                } else {
                    worker.queue.add(request);
                }
        }
    }

    private static void speakLastWords() throws InterruptedException {
        List<Request> spoken = new ArrayList<>();
        for (int i = 0; i + 1 < lastWords.size(); i += 2) {
            Worker worker = WORKERS.get(lastWords.get(i));
            if (worker != null) {
                Request request = new Request("0", "run", lastWords.get(i), lastWords.subList(i + 1, i + 2));
                worker.queue.add(request);
                spoken.add(request);
            }
        }
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(lastWordsBoundMs);
        for (Request request : spoken) {
            request.done.await(Math.max(0, end - System.nanoTime()), TimeUnit.NANOSECONDS);
        }
    }

    private static String decode(String token) {
        if (token.equals("~")) {
            return null;
        }
        return token.equals("=") ? "" : new String(Base64.getDecoder().decode(token), StandardCharsets.UTF_8);
    }

    private static String encode(String text) {
        if (text == null) {
            return "~";
        }
        return text.isEmpty() ? "=" : Base64.getEncoder().encodeToString(text.getBytes(StandardCharsets.UTF_8));
    }

    /** One line from stdin, and its one answer. */
    private static final class Request {
        final String id;
        final String verb;
        final String name;
        final List<String> arguments;
        final CountDownLatch done = new CountDownLatch(1);

        Request(String[] words) {
            id = words[0];
            verb = words[1];
            name = decode(words[2]);
            arguments = new ArrayList<>();
            for (String word : Arrays.asList(words).subList(3, words.length)) {
                arguments.add(decode(word));
            }
        }

        Request(String id, String verb, String name, List<String> arguments) {
            this.id = id;
            this.verb = verb;
            this.name = name;
            this.arguments = arguments;
        }

        void reply(String status, long elapsedUs, String rest) {
            byte[] line = (id + " " + status + " " + elapsedUs + " " + rest + "\n").getBytes(StandardCharsets.US_ASCII);
            synchronized (OUT) {
                try {
                    OUT.write(line);
                    OUT.flush();
                } catch (IOException nobodyListens) {
                    // the end of stdin follows, and with it the last words
                }
            }
            done.countDown();
        }

        void fail(long elapsedUs, Throwable error) {
            StringBuilder chain = new StringBuilder();
            if (error instanceof SQLException) {
                for (SQLException e = (SQLException) error; e != null; e = e.getNextException()) {
                    String state = e.getSQLState() == null ? "" : e.getSQLState();
                    append(chain, state, Integer.toString(e.getErrorCode()), e.getMessage());
                }
            } else {
                append(chain, null, "0", error.toString());
            }
            reply("err", elapsedUs, chain.toString().trim());
        }

        private static void append(StringBuilder chain, String state, String code, String message) {
            chain.append(encode(state)).append(' ').append(encode(code)).append(' ').append(encode(message)).append(' ');
        }
    }

    /** The thread that owns one connection and does its requests in the order in which they came. */
    private static final class Worker extends Thread {
        final LinkedBlockingQueue<Request> queue = new LinkedBlockingQueue<>();
        volatile boolean dropped = false;
        private final Map<String, PreparedStatement> prepared = new HashMap<>();
        private Connection connection = null;

        Worker(String name) {
            super("connection " + name);
            setDaemon(true);
        }

        @Override
        public void run() {
            try {
                while (!dropped) {
                    answer(queue.take());
                }
            } catch (InterruptedException wasDropped) {
                // nothing was under way
            }
            try {
                close();
            } catch (SQLException itEndsAnyway) {
                // nobody waits for this connection any more
            }
        }

        private void answer(Request request) {
            long start = System.nanoTime();
            try {
                String rest = perform(request);
                request.reply("ok", elapsedUs(start), rest);
            } catch (SQLException | RuntimeException | LinkageError error) {
                request.fail(elapsedUs(start), error);
            }
        }

        private static long elapsedUs(long start) {
            return TimeUnit.NANOSECONDS.toMicros(System.nanoTime() - start);
        }

        private String perform(Request request) throws SQLException {
            List<String> args = request.arguments;
            if (request.verb.equals("open")) {
                return open(args);
            }
            if (connection == null) {
                throw new IllegalStateException("the connection is not open");
            }
            switch (request.verb) {
                case "execute":
                    try (PreparedStatement statement = connection.prepareStatement(args.get(0))) {
                        return execute(statement, args.subList(1, args.size()));
                    }
                case "prepare":
                    PreparedStatement former = prepared.put(args.get(0), connection.prepareStatement(args.get(1)));
                    if (former != null) {
                        former.close();
                    }
                    return "0";
                case "run":
                    PreparedStatement statement = prepared.get(args.get(0));
                    if (statement == null) {
                        throw new IllegalStateException("no statement was prepared under this key");
                    }
                    return execute(statement, args.subList(1, args.size()));
                case "begin":
                    connection.setAutoCommit(false);
                    return "0";
                case "commit":
                    connection.commit();
                    connection.setAutoCommit(true);
                    return "0";
                case "rollback":
                    connection.rollback();
                    connection.setAutoCommit(true);
                    return "0";
                case "digest":
                    try (PreparedStatement query = connection.prepareStatement(args.get(0))) {
                        return digest(query);
                    }
                case "close":
                    close();
                    return "0";
                default:
                    throw new IllegalArgumentException("no such verb: " + request.verb);
            }
        }

        private String open(List<String> args) throws SQLException {
            close();
            Properties properties = new Properties();
            for (int i = 1; i + 1 < args.size(); i += 2) {
                properties.setProperty(args.get(i), args.get(i + 1));
            }
            connection = DriverManager.getConnection(args.get(0), properties);
            return "0";
        }

        private void close() throws SQLException {
            Connection closing = connection;
            connection = null;
            prepared.clear();
            if (closing != null && !closing.isClosed()) {
                if (!closing.getAutoCommit()) {
                    closing.rollback(); // Derby refuses to close in the middle of a transaction
                }
                closing.close();
            }
        }

        private static String execute(PreparedStatement statement, List<String> parameters) throws SQLException {
            for (int i = 0; i < parameters.size(); i++) {
                statement.setString(i + 1, parameters.get(i));
            }
            if (!statement.execute()) {
                return "0";
            }
            try (ResultSet rows = statement.getResultSet()) {
                int columns = rows.getMetaData().getColumnCount();
                StringBuilder cells = new StringBuilder(Integer.toString(columns));
                while (rows.next()) {
                    for (int column = 1; column <= columns; column++) {
                        cells.append(' ').append(encode(rows.getString(column)));
                    }
                }
                return cells.toString();
            }
        }

        private static String digest(PreparedStatement query) throws SQLException {
            BigInteger sum = BigInteger.ZERO;
            long count = 0;
            MessageDigest row = sha256();
            try (ResultSet rows = query.executeQuery()) {
                ResultSetMetaData columns = rows.getMetaData();
                while (rows.next()) {
                    for (int column = 1; column <= columns.getColumnCount(); column++) {
                        add(row, rows, column, columns.getColumnType(column));
                    }
                    sum = sum.add(new BigInteger(1, row.digest()));
                    count++;
                }
            } catch (IOException broken) {
                throw new SQLException("a value could not be read to its end", "58030", broken);
            }
            String total = String.format("%064x", sum.mod(BigInteger.ONE.shiftLeft(256)));
            return "2 " + encode(Long.toString(count)) + ' ' + encode(total);
        }

        /** Every value is framed by its length or its hash, so that no two different rows feed the same bytes. */
        private static void add(MessageDigest row, ResultSet rows, int column, int type) throws SQLException, IOException {
            byte[] bytes;
            int mark;
            if (type == Types.BLOB || type == Types.LONGVARBINARY) {
                bytes = hash(rows.getBinaryStream(column));
                mark = -2;
            } else if (type == Types.CLOB || type == Types.LONGVARCHAR) {
                bytes = hash(rows.getCharacterStream(column));
                mark = -2;
            } else {
                String text = rows.getString(column);
                bytes = text == null ? null : text.getBytes(StandardCharsets.UTF_8);
                mark = bytes == null ? -1 : bytes.length;
            }
            row.update(ByteBuffer.allocate(4).putInt(bytes == null ? -1 : mark).array());
            if (bytes != null) {
                row.update(bytes);
            }
        }

        private static byte[] hash(InputStream content) throws IOException {
            if (content == null) {
                return null;
            }
            MessageDigest hash = sha256();
            byte[] piece = new byte[PIECE];
            for (int length = content.read(piece); length >= 0; length = content.read(piece)) {
                hash.update(piece, 0, length);
            }
            return hash.digest();
        }

        private static byte[] hash(Reader content) throws IOException {
            if (content == null) {
                return null;
            }
            MessageDigest hash = sha256();
            char[] piece = new char[PIECE];
            for (int length = content.read(piece); length >= 0; length = content.read(piece)) {
                hash.update(new String(piece, 0, length).getBytes(StandardCharsets.UTF_16BE)); // no state between pieces
            }
            return hash.digest();
        }

        private static MessageDigest sha256() {
            try {
                return MessageDigest.getInstance("SHA-256");
            } catch (NoSuchAlgorithmException everyPlatformHasIt) {
                throw new IllegalStateException(everyPlatformHasIt);
            }
        }
    }
}
