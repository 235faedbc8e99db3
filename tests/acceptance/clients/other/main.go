// database/sql by the README's function: eight goroutines, two users, every fifth transaction undone.
package main

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"os"
	"sync"

	_ "github.com/lib/pq"
)

func main() {
	db, err := sql.Open("postgres", os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	db.SetMaxOpenConns(3)
	undone := errors.New("undone")
	var all sync.WaitGroup
	for worker := 0; worker < 8; worker++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for n := 0; n < 50; n++ {
				user := []string{"ann", "o'hara"}[n%2]
				who := map[string]any{"user_id": user, "ip_address": "10.0.0.9"}
				err := Audited(context.Background(), db, who, func(tx *sql.Tx) error {
					if _, err := tx.Exec("insert into orders (app, who) values ('go', $1)", user); err != nil {
						return err
					}
					if n%5 == 0 {
						return undone
					}
					return nil
				})
				if err != nil && err != undone {
					log.Fatal(err)
				}
			}
		}()
	}
	all.Wait()
}
