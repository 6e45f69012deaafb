//go:build linux

package main

import (
	"context"
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // to lock firstbell's store as another program would
)

// lockStore keeps firstbell from writing to its store until release is called:
// receipts go on, and are measured apart from delivery.
func lockStore(dir string) func() (release func(), err error) {
	return func() (func(), error) {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "attendance.db")+"?_pragma=busy_timeout(10000)")
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(1)
		if _, err := db.Exec("BEGIN IMMEDIATE"); err != nil {
			db.Close()
			return nil, err
		}
		return func() {
			_, _ = db.Exec("ROLLBACK") // closing does as much
			db.Close()
		}, nil
	}
}

// takesTLS asks firstbell's own check whether it can be given a certificate.
func takesTLS(ctx context.Context, program string) bool {
	dir, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	at, err := newSite(dir, "127.0.0.1:1", true)
	if err != nil {
		return false
	}
	if err := peers[0].render(at); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, program, "check", "-config", dir+"/firstbell.yaml").Run() == nil
}
