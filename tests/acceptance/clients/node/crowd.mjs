// Two users and eight workers, as crowd.py: (user, step) of each transaction, the user drawn anew for each.
const USERS = ["ann", "ben"];
const WORKERS = 8;
export const STEPS = (process.env.CLIENTS_STEPS || "insert,insert_and_update,read,retry,alone,two_users").split(",");
const TRANSACTIONS = Number(process.env.CLIENTS_TRANSACTIONS);

export const other = (user) => USERS[1 - USERS.indexOf(user)];

export async function workInTasks(transaction) {
  const work = async (worker) => {
    let seed = worker + 1;
    for (let n = 0; n < TRANSACTIONS / WORKERS; n++) {
      seed = (seed * 16807) % 2147483647;
      await transaction(USERS[seed % 2], STEPS[n % STEPS.length]);
    }
  };
  await Promise.all(Array.from({ length: WORKERS }, (_, worker) => work(worker)));
}
