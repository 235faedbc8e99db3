// Debezium's embedded engine on a PostgreSQL slot, with a sink that only counts.
// Arguments: host, port, database, slot, rows. Prints "seconds N" between the first row event and the last.

import io.debezium.embedded.Connect;
import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.source.SourceRecord;

public class Drain {
    private static long seen = 0;
    private static long began = 0;
    private static long ended = 0;

    public static void main(String[] arguments) throws Exception {
        long rows = Long.parseLong(arguments[4]);
        CountDownLatch done = new CountDownLatch(1);
        DebeziumEngine<ChangeEvent<SourceRecord, SourceRecord>> engine = DebeziumEngine.create(Connect.class)
            .using(settings(arguments))
            .using((success, message, error) -> {
                if (error != null) {
                    error.printStackTrace();
                }
                done.countDown();
            })
            .notifying((records, committer) -> {
                if (began == 0) {
                    began = System.nanoTime();
                }
                for (ChangeEvent<SourceRecord, SourceRecord> record : records) {
                    if (record.value().value() instanceof Struct value && value.schema().field("op") != null
                        && !"m".equals(value.getString("op"))) {
                        seen++;
                    }
                    committer.markProcessed(record);
                }
                committer.markBatchFinished();
                if (seen >= rows) {
                    ended = System.nanoTime();
                    done.countDown();
                }
            })
            .build();
        ExecutorService executor = Executors.newSingleThreadExecutor();
        executor.execute(engine);
        done.await();
        if (seen < rows) {
            System.err.println("the engine ended after " + seen + " of " + rows + " rows");
            System.exit(1);
        }
        System.out.println("seconds " + (ended - began) / 1e9);
        System.exit(0); // the engine's own end takes seconds and is of no interest
    }

    private static Properties settings(String[] arguments) {
        Properties settings = new Properties();
        settings.setProperty("name", "bench");
        settings.setProperty("topic.prefix", "bench");
        settings.setProperty("connector.class", "io.debezium.connector.postgresql.PostgresConnector");
        settings.setProperty("offset.storage", "org.apache.kafka.connect.storage.MemoryOffsetBackingStore");
        settings.setProperty("database.hostname", arguments[0]);
        settings.setProperty("database.port", arguments[1]);
        settings.setProperty("database.dbname", arguments[2]);
        settings.setProperty("database.user", "postgres");
        settings.setProperty("plugin.name", "pgoutput");
        settings.setProperty("slot.name", arguments[3]);
        settings.setProperty("publication.autocreate.mode", "disabled");
        settings.setProperty("publication.name", "dbz_publication");
        settings.setProperty("snapshot.mode", "no_data");
        settings.setProperty("table.include.list", "public.orders");
        settings.setProperty("errors.max.retries", "0");
        // As fast as it goes: larger batches and queue than by default.
        settings.setProperty("max.batch.size", "8192");
        settings.setProperty("max.queue.size", "32768");
        return settings;
    }
}
