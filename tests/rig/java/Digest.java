import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

/**
 * What is in a database. Standard input: the JDBC URL, the user and the password, a line each. Standard output:
 * `T schema.table rows sum check` for every table, where `sum` adds the SHA-256 of the rows modulo 2^256 (so
 * their order does not matter) and `check` is the answer of SYSCS_CHECK_TABLE; then `J writer seq`
 * for every row of JOURNAL. With the argument `journal` the latter only: large tables take minutes.
 */
public final class Digest {
    private static final BigInteger MODULUS = BigInteger.ONE.shiftLeft(256);

    public static void main(String[] args) throws Exception {
        System.setProperty("derby.stream.error.file", "/dev/null");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        String url = in.readLine();
        Properties who = new Properties();
        String user = in.readLine();
        String password = in.readLine();
        if (user != null && !user.isEmpty()) {
            who.setProperty("user", user);
            who.setProperty("password", password);
        }
        boolean embedded = !url.startsWith("jdbc:derby://");
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        try (Connection c = DriverManager.getConnection(url, who)) {
            c.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
            if (args.length == 0) {
                for (String[] table : tables(c)) {
                    table(c, table[0], table[1], out);
                }
            }
            journal(c, out);
        }
        out.flush();
        if (embedded) {
            who.setProperty("shutdown", "true");
            try {
                DriverManager.getConnection(url, who);
            } catch (SQLException e) {
                if (!"08006".equals(e.getSQLState())) {
                    throw e;
                }
            }
        }
    }

    private static List<String[]> tables(Connection c) throws SQLException {
        List<String[]> found = new ArrayList<>();
        try (Statement s = c.createStatement();
                ResultSet rows = s.executeQuery("SELECT schemaname, tablename FROM SYS.SYSTABLES t"
                    + " JOIN SYS.SYSSCHEMAS s ON t.schemaid = s.schemaid WHERE tabletype = 'T' ORDER BY 1, 2")) {
            while (rows.next()) {
                found.add(new String[] {rows.getString(1), rows.getString(2)});
            }
        }
        return found;
    }

    private static void table(Connection c, String schema, String name, PrintStream out)
            throws SQLException, NoSuchAlgorithmException {
        MessageDigest sha = MessageDigest.getInstance("SHA-256");
        BigInteger sum = BigInteger.ZERO;
        long count = 0;
        try (Statement s = c.createStatement();
                ResultSet rows = s.executeQuery("SELECT * FROM \"" + schema + "\".\"" + name + "\"")) {
            int columns = rows.getMetaData().getColumnCount();
            while (rows.next()) {
                for (int i = 1; i <= columns; i++) {
                    String value = rows.getString(i);
                    byte[] bytes = value == null ? new byte[0] : value.getBytes(StandardCharsets.UTF_8);
                    sha.update(ByteBuffer.allocate(4).putInt(value == null ? -1 : bytes.length).array());
                    sha.update(bytes);
                }
                sum = sum.add(new BigInteger(1, sha.digest()));
                count++;
            }
        }
        String total = String.format("%064x", sum.mod(MODULUS));
        out.println("T " + schema + "." + name + " " + count + " " + total + " " + check(c, schema, name));
    }

    private static int check(Connection c, String schema, String name) throws SQLException {
        try (PreparedStatement s = c.prepareStatement("VALUES SYSCS_UTIL.SYSCS_CHECK_TABLE(?, ?)")) {
            s.setString(1, schema);
            s.setString(2, name);
            try (ResultSet rows = s.executeQuery()) {
                rows.next();
                return rows.getInt(1);
            }
        } catch (SQLException e) {
            // X0Y55 and its like: the answer of this procedure to an inconsistent table is an exception.
            System.err.println(e.getSQLState() + " " + e.getMessage());
            return 0;
        }
    }

    private static void journal(Connection c, PrintStream out) throws SQLException, IOException {
        try (Statement s = c.createStatement();
                ResultSet rows = s.executeQuery("SELECT writer, seq FROM APP.JOURNAL")) {
            while (rows.next()) {
                out.println("J " + rows.getInt(1) + " " + rows.getLong(2));
            }
        }
    }
}
