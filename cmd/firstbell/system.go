package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"firstbell/attendance"
	"firstbell/cmd/firstbell/handover"
)

// tellSystem tells systemd, and whoever reads the PID file, that this process
// serves.
func (s *server) tellSystem() error {
	if file := s.options.pidFile; file != "" {
		if err := attendance.WriteFileSynced(file, pidLine(), 0o644); err != nil {
			return fmt.Errorf("writing the PID file: %w", err)
		}
	}
	if err := handover.Notify(fmt.Sprintf("MAINPID=%d\nREADY=1\nSTATUS=serving, generation %d", os.Getpid(), s.generation)); err != nil {
		s.log.Warn("systemd does not know that this process serves", "error", err)
	}
	return nil
}

// tellEnd tells systemd that this process ends, and removes its PID file. When
// it has been replaced, both are the next process's.
func (s *server) tellEnd(replaced bool) {
	if replaced {
		return
	}
	if err := handover.Notify("STOPPING=1"); err != nil {
		s.log.Warn("systemd does not know that this process ends", "error", err)
	}
	file := s.options.pidFile
	if text, err := os.ReadFile(file); file == "" || err != nil || !bytes.Equal(text, pidLine()) {
		return
	}
	if err := os.Remove(file); err != nil {
		s.log.Warn("the PID file stays", "error", err)
	}
}

func pidLine() []byte { return append(strconv.AppendInt(nil, int64(os.Getpid()), 10), '\n') }
