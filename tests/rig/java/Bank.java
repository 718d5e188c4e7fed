import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Random;

/** Makes the sample database with the embedded engine: `Bank DIRECTORY ACCOUNTS`. */
public final class Bank {
    static final int ROWS_PER_COMMIT = 20_000;
    static final int ROWS_PER_BATCH = 500;
    static final int FILLER = 940; // eight rows fill a page of 8 KiB

    public static void main(String[] args) throws SQLException {
        System.setProperty("derby.storage.pageSize", "8192");
        System.setProperty("derby.storage.pageCacheSize", "4000");
        System.setProperty("derby.storage.checkpointInterval", "128000000");
        System.setProperty("derby.stream.error.file", "/dev/null");
        String url = "jdbc:derby:" + args[0];
        try (Connection c = DriverManager.getConnection(url + ";create=true")) {
            c.setAutoCommit(false);
            try (Statement s = c.createStatement()) {
                s.execute("CREATE TABLE ACCT (id INT NOT NULL PRIMARY KEY, bal BIGINT NOT NULL, filler VARCHAR(1000) NOT NULL)");
                s.execute("CREATE TABLE JOURNAL (writer INT NOT NULL, seq BIGINT NOT NULL, acct INT NOT NULL,"
                    + " amount INT NOT NULL, note VARCHAR(100) NOT NULL, PRIMARY KEY (writer, seq))");
                s.execute("CREATE INDEX JOURNAL_ACCT ON JOURNAL (acct)");
            }
            fill(c, Integer.parseInt(args[1]));
            c.commit();
        }
        try {
            DriverManager.getConnection(url + ";shutdown=true");
        } catch (SQLException e) {
            if (!"08006".equals(e.getSQLState())) {
                throw e;
            }
        }
    }

    private static void fill(Connection c, int accounts) throws SQLException {
        Random random = new Random(7); // the same database every time
        byte[] filler = new byte[FILLER];
        try (PreparedStatement insert = c.prepareStatement("INSERT INTO ACCT VALUES (?, ?, ?)")) {
            for (int id = 0; id < accounts; id++) {
                random.nextBytes(filler);
                for (int i = 0; i < FILLER; i++) {
                    filler[i] = (byte) ('0' + (filler[i] & 63));
                }
                insert.setInt(1, id);
                insert.setLong(2, 1000);
                insert.setString(3, new String(filler, StandardCharsets.US_ASCII));
                insert.addBatch();
                if (id % ROWS_PER_BATCH == ROWS_PER_BATCH - 1 || id == accounts - 1) {
                    insert.executeBatch();
                }
                if (id % ROWS_PER_COMMIT == ROWS_PER_COMMIT - 1) {
                    c.commit();
                }
            }
        }
    }
}
