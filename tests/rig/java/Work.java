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
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.concurrent.CopyOnWriteArrayList;
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
    private final List<Client> clients = new CopyOnWriteArrayList<>();
    private volatile boolean stopping;
    private volatile long reads; // there is one reader

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
            clients.add(new Writer(number("first_writer") + i, 1, 0));
        }
        if (number("reader") == 1) {
            clients.add(new Reader(0));
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
        write("R " + reads + "\n");
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

    /**
     * Puts a new client in the place of one whose peer says nothing: a host without power sends no reset, and
     * the driver has neither a timeout nor an abort() that does without the peer.
     */
    private void watch() {
        long stallNs = number("stall_ms") * 1_000_000L;
        while (true) {
            LockSupport.parkNanos(WATCH_MS * 1_000_000L);
            for (Client client : clients) {
                if (client.giveUp(stallNs)) {
                    Client fresh = client.successor();
                    clients.remove(client);
                    clients.add(fresh);
                    fresh.start();
                }
            }
        }
    }

    private abstract class Client extends Thread {
        final Random random = new Random();
        Connection connection;
        int url;
        private long busySinceNs;
        private boolean busy;
        private boolean inTransaction;
        private boolean abandoned;

        Client(int url) {
            this.url = url % urls.length;
            setDaemon(true);
        }

        abstract void prepare() throws SQLException;

        abstract void once() throws SQLException;

        abstract void failed(SQLException e);

        /** Who goes on when this client was given up; also says what became of its transaction. */
        abstract Client successor();

        @Override
        public void run() {
            while (!stopping && !isAbandoned()) {
                try {
                    if (connection == null) {
                        connect();
                    }
                    once();
                } catch (SQLException e) {
                    if (done()) {
                        failed(e);
                        recover(e);
                    }
                }
            }
        }

        void connect() throws SQLException {
            Properties who = new Properties();
            if (!settings.get("user").isEmpty()) {
                who.setProperty("user", settings.get("user"));
                who.setProperty("password", settings.get("password"));
            }
            begin(false);
            connection = DriverManager.getConnection(urls[url], who);
            connection.setAutoCommit(false);
            prepare();
            done();
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

        /** The driver refuses to close() within a transaction, and abort() may wait for a dead peer. */
        private void drop() {
            Connection old = connection;
            connection = null;
            if (old != null) {
                Thread closing = new Thread(() -> {
                    try {
                        old.abort(Runnable::run);
                    } catch (SQLException e) {
                        return; // it was broken before; nothing depends on it any more
                    }
                });
                closing.setDaemon(true);
                closing.start();
            }
        }

        /** Throws when this client was given up: its successor has the rest of the work. */
        synchronized void begin(boolean transaction) throws SQLException {
            if (abandoned) {
                throw new SQLException("given up");
            }
            busySinceNs = System.nanoTime();
            busy = true;
            inTransaction = transaction;
        }

        /** False when this client was given up: then what it did since `begin` must not be recorded. */
        synchronized boolean done() {
            if (!abandoned) {
                busy = false;
                inTransaction = false;
            }
            return !abandoned;
        }

        /** Of a client that was given up: whether that was within a transaction. */
        synchronized boolean wasInTransaction() {
            return inTransaction;
        }

        synchronized boolean isAbandoned() {
            return abandoned;
        }

        synchronized boolean giveUp(long stallNs) {
            abandoned |= busy && System.nanoTime() - busySinceNs > stallNs;
            return abandoned;
        }
    }

    private final class Writer extends Client {
        private final int writer;
        private final int accounts = number("accounts");
        private final long intervalNs;
        private PreparedStatement insert;
        private PreparedStatement update;
        private volatile long seq;
        private long dueNs = System.nanoTime();
        private boolean committing;
        private volatile long startNs;

        Writer(int writer, long seq, int url) {
            super(url);
            this.writer = writer;
            this.seq = seq;
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
            begin(true);
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
            if (isAbandoned()) {
                return;
            }
            committing = true;
            connection.commit();
            if (done()) {
                outcome("A");
            }
        }

        /** A transaction that hangs may still be committed one day: its outcome is unknown. */
        @Override
        Client successor() {
            if (wasInTransaction()) {
                outcome("U");
            }
            return new Writer(writer, seq, url + 1);
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

        Reader(int url) {
            super(url);
        }

        @Override
        Client successor() {
            return new Reader(url + 1);
        }

        @Override
        void prepare() throws SQLException {
            select = connection.prepareStatement("SELECT SUM(bal) FROM ACCT WHERE id BETWEEN ? AND ?");
        }

        @Override
        void once() throws SQLException {
            int from = random.nextInt(accounts);
            begin(true);
            select.setInt(1, from);
            select.setInt(2, from + 100);
            try (ResultSet rows = select.executeQuery()) {
                rows.next();
            }
            connection.commit();
            if (done()) {
                reads++;
            }
            LockSupport.parkNanos(5_000_000L);
        }

        @Override
        void failed(SQLException e) {
            write("E 0 0 " + System.nanoTime() + " " + e.getSQLState() + " reader\n");
        }
    }
}
