// JDBC by the README's class: one connection that is lent again and again, two users in turn, every fifth transaction undone.
import java.lang.reflect.Proxy;
import java.sql.*;
import javax.sql.DataSource;

class Main {
    public static void main(String[] arguments) throws SQLException {
        try (Connection only = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
            Connection lent = (Connection) Proxy.newProxyInstance(
                Main.class.getClassLoader(), new Class<?>[] {Connection.class},
                (proxy, method, given) -> method.getName().equals("close") ? null : method.invoke(only, given));
            DataSource pool = (DataSource) Proxy.newProxyInstance(
                Main.class.getClassLoader(), new Class<?>[] {DataSource.class}, (proxy, method, given) -> lent);
            for (int n = 0; n < 200; n++) {
                String user = n % 2 == 0 ? "ann" : "o'hara";
                boolean isUndone = n % 5 == 0;
                try {
                    Audit.as(pool, "{\"user_id\": \"" + user + "\"}", db -> {
                        try (PreparedStatement insert = db.prepareStatement("insert into orders (app, who) values ('java', ?)")) {
                            insert.setString(1, user);
                            insert.execute();
                        }
                        if (isUndone) throw new IllegalStateException("undone");
                    });
                } catch (IllegalStateException undone) {
                    if (!isUndone) throw undone;
                }
            }
        }
    }
}
