import java.io.BufferedReader;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.concurrent.locks.LockSupport;

/**
 * Bank clients that reconnect. Settings come on standard input as `key=value` lines up to an empty one (so no
 * password is in the arguments); the end of standard input ends the run.
 *
 * <p>Every line of the record is one write(2), so what was acknowledged is in it even after kill -9:
 * `A writer seq start_ns ack_ns wall_ms` an acknowledged commit, `U ...` a commit with unknown outcome,
 * `E writer seq ns sqlstate message` any other error, `R reads` at the end. Times are CLOCK_MONOTONIC.
 */
public final class Work {
    private static final long PACE_RESET_NS = 1_000_000_000L;
    private static final long WATCH_MS = 50;

    private final Map<String, String> settings;
    private final String[] urls;
    private final FileOutputStream record;
    private final List<Client> clients = new ArrayList<>();
    private volatile boolean stopping;

    private Work(Map<String, String> settings) throws IOException {
        this.settings = settings;
        this.urls = settings.get("urls").split(" ");
        this.record = new FileOutputStream(settings.get("record"), true);
    }

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        Map<String, String> settings = new HashMap<>();
        for (String line = in.readLine(); line != null && !line.isEmpty(); line = in.readLine()) {
            int at = line.indexOf('=');
            settings.put(line.substring(0, at), line.substring(at + 1));
        }
        new Work(settings).run(in);
    }

    private void run(BufferedReader in) throws Exception {
        DriverManager.setLoginTimeout(Math.max(1, number("stall_ms") / 1000));
        int writers = number("writers");
        for (int i = 0; i < writers; i++) {
            clients.add(new Writer(number("first_writer") + i));
        }
        Reader reader = new Reader();
        if (number("reader") == 1) {
            clients.add(reader);
        }
        for (Client client : clients) {
            client.start();
        }
        Thread watch = new Thread(this::watch);
        watch.setDaemon(true);
        watch.start();
        while (in.readLine() != null) {
            continue;
        }
        stopping = true;
        for (Client client : clients) {
            client.join(2L * number("stall_ms"));
        }
        write("R " + reader.reads + "\n");
        System.exit(0); // a client that hangs in the driver must not keep the process
    }

    private int number(String key) {
        return Integer.parseInt(settings.get(key));
    }

    private synchronized void write(String line) {
        try {
            record.write(line.getBytes(StandardCharsets.UTF_8));
        } catch (IOException e) {
            System.exit(2);
        }
    }

    /** Gives up on connections whose peer says nothing: a host without power sends no reset. */
    private void watch() {
        long stallNs = number("stall_ms") * 1_000_000L;
        while (true) {
            LockSupport.parkNanos(WATCH_MS * 1_000_000L);
            for (Client client : clients) {
                client.abortIfStalled(stallNs);
            }
        }
    }

    private abstract class Client extends Thread {
        final Random random = new Random();
        Connection connection;
        int url;
        private volatile Connection watched;
        private volatile long busySinceNs;

        Client() {
            setDaemon(true);
        }

        abstract void prepare() throws SQLException;

        abstract void once() throws SQLException;

        abstract void failed(SQLException e);

        @Override
        public void run() {
            while (!stopping) {
                try {
                    if (connection == null) {
                        connect();
                    }
                    once();
                } catch (SQLException e) {
                    failed(e);
                    recover(e);
                }
            }
        }

        void connect() throws SQLException {
            Properties who = new Properties();
            if (!settings.get("user").isEmpty()) {
                who.setProperty("user", settings.get("user"));
                who.setProperty("password", settings.get("password"));
            }
            connection = DriverManager.getConnection(urls[url], who);
            connection.setAutoCommit(false);
            prepare();
        }

        /** A deadlock or a lock timeout (40...) leaves the connection as it is; else the next address. */
        void recover(SQLException e) {
            boolean alive = connection != null && e.getSQLState() != null && e.getSQLState().startsWith("40");
            if (alive) {
                try {
                    connection.rollback();
                    return;
                } catch (SQLException gone) {
                    failed(gone);
                }
            }
            drop();
            url = (url + 1) % urls.length;
            LockSupport.parkNanos(number("backoff_ms") * 1_000_000L);
        }

        private void drop() {
            Connection old = connection;
            connection = null;
            if (old != null) {
                // The driver refuses to close within a transaction; abort() does not ask.
                abort(old);
            }
        }

        void begin() {
            busySinceNs = System.nanoTime();
            watched = connection;
        }

        void done() {
            watched = null;
        }

        void abortIfStalled(long stallNs) {
            Connection stalled = watched;
            if (stalled != null && System.nanoTime() - busySinceNs > stallNs) {
                watched = null;
                abort(stalled);
            }
        }

        private void abort(Connection which) {
            try {
                which.abort(Runnable::run);
            } catch (SQLException e) {
                failed(e);
            }
        }
    }

    private final class Writer extends Client {
        private final int writer;
        private final int accounts = number("accounts");
        private final long intervalNs;
        private PreparedStatement insert;
        private PreparedStatement update;
        private long seq = 1;
        private long dueNs = System.nanoTime();
        private boolean committing;
        private long startNs;

        Writer(int writer) {
            this.writer = writer;
            double rate = Double.parseDouble(settings.get("rate"));
            this.intervalNs = rate > 0 ? (long) (1e9 * number("writers") / rate) : 0;
        }

        @Override
        void prepare() throws SQLException {
            insert = connection.prepareStatement("INSERT INTO JOURNAL VALUES (?, ?, ?, ?, ?)");
            update = connection.prepareStatement("UPDATE ACCT SET bal = bal + ? WHERE id = ?");
        }

        @Override
        void once() throws SQLException {
            pace();
            startNs = System.nanoTime();
            committing = false;
            begin();
            try {
                int one = random.nextInt(accounts);
                int other = random.nextInt(accounts);
                int amount = random.nextInt(100);
                insert.setInt(1, writer);
                insert.setLong(2, seq);
                insert.setInt(3, one);
                insert.setInt(4, amount);
                insert.setString(5, "moved by writer " + writer + " in its transaction " + seq);
                insert.executeUpdate();
                // In the order of the accounts, so that writers never wait for each other in a circle.
                add(Math.min(one, other), amount);
                add(Math.max(one, other), -amount);
                committing = true;
                connection.commit();
                outcome("A");
            } finally {
                done();
            }
        }

        private void add(int account, int amount) throws SQLException {
            update.setInt(1, amount);
            update.setInt(2, account);
            update.executeUpdate();
        }

        private void outcome(String kind) {
            committing = false;
            write(kind + " " + writer + " " + seq++ + " " + startNs + " " + System.nanoTime() + " "
                + System.currentTimeMillis() + "\n");
        }

        @Override
        void failed(SQLException e) {
            if (committing) {
                outcome("U");
            }
            String message = String.valueOf(e.getMessage()).replace('\n', ' ');
            write("E " + writer + " " + seq + " " + System.nanoTime() + " " + e.getSQLState() + " " + message + "\n");
        }

        private void pace() {
            if (intervalNs == 0) {
                return;
            }
            long now = System.nanoTime();
            dueNs = Math.max(dueNs + intervalNs, now - PACE_RESET_NS);
            if (dueNs > now) {
                LockSupport.parkNanos(dueNs - now);
            }
        }
    }

    private final class Reader extends Client {
        private final int accounts = number("accounts");
        private PreparedStatement select;
        private volatile long reads;

        @Override
        void prepare() throws SQLException {
            select = connection.prepareStatement("SELECT SUM(bal) FROM ACCT WHERE id BETWEEN ? AND ?");
        }

        @Override
        void once() throws SQLException {
            int from = random.nextInt(accounts);
            begin();
            try {
                select.setInt(1, from);
                select.setInt(2, from + 100);
                try (ResultSet rows = select.executeQuery()) {
                    rows.next();
                }
                connection.commit();
                reads++;
            } finally {
                done();
            }
            LockSupport.parkNanos(5_000_000L);
        }

        @Override
        void failed(SQLException e) {
            write("E 0 0 " + System.nanoTime() + " " + e.getSQLState() + " reader\n");
        }
    }
}
