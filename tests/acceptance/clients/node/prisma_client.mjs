// Prisma with its driver adapter: three connections, eight workers. Uses what the README says, taken from it by the test.
import { PrismaPg } from "@prisma/adapter-pg";
import client from "@prisma/client";
import { audit, inTransaction, runAs } from "./audit-prisma.mjs";
import { other, workInTasks } from "./crowd.mjs";

const bare = new client.PrismaClient({ adapter: new PrismaPg({ max: 3 }), transactionOptions: { maxWait: 60000, timeout: 60000 } });
const prisma = bare.$extends(audit);
const order = (who) => ({ data: { app: "prisma_client", who } });

async function transaction(user, step) {
  if (step === "read") return prisma.order.count({ where: { id: 1 } });
  if (step === "alone" || step === "insert") {
    return runAs({ user_id: user, request_id: step }, () => prisma.order.create(order(user)));
  }
  if (step === "retry") {
    await runAs({ user_id: user }, () =>
      inTransaction(bare, async (db) => {
        await db.order.create(order("nobody"));
        throw new Error("undone");
      }),
    ).catch((error) => {
      if (error.message !== "undone") throw error;
    });
  }
  await runAs({ user_id: user }, () =>
    inTransaction(bare, async (db) => {
      const { id } = await db.order.create(order(user));
      if (step === "insert_and_update") {
        await db.order.update({ where: { id }, data: { who: user, changes: { increment: 1 } } });
      }
    }),
  );
  if (step === "two_users") await runAs({ user_id: other(user) }, () => prisma.order.create(order(other(user))));
}

await workInTasks(transaction);
await bare.$disconnect();
