// node-pg: a pool of three connections, eight workers. Uses what the README says, taken from it by the test.
import pg from "pg";
import { audited, runAs } from "./audit-pg.mjs";
import { other, workInTasks } from "./crowd.mjs";

const INSERT = "insert into orders (app, who) values ('node_pg', $1) returning id";
const pool = new pg.Pool({ max: 3 });

async function transaction(user, step) {
  if (step === "read") return pool.query("select count(*) from orders where id = 1");
  if (step === "retry") {
    await runAs({ user_id: user }, () =>
      audited(pool, async (db) => {
        await db.query(INSERT, ["nobody"]);
        throw new Error("undone");
      }),
    ).catch((error) => {
      if (error.message !== "undone") throw error;
    });
  }
  await runAs({ user_id: user, request_id: step }, () =>
    audited(pool, async (db) => {
      const { rows } = await db.query(INSERT, [user]);
      if (step === "insert_and_update") {
        await db.query("update orders set changes = changes + 1, who = $1 where id = $2", [user, rows[0].id]);
      }
    }),
  );
  if (step === "two_users") {
    await runAs({ user_id: other(user) }, () => audited(pool, (db) => db.query(INSERT, [other(user)])));
  }
}

await workInTasks(transaction);
await pool.end();
