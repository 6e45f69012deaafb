package handover

import (
	"fmt"
	"net"
	"os"
)

// Notify tells systemd the state of the service (sd_notify(3)), one assignment
// a line; it does nothing for a process that systemd does not wait for.
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if path[0] == '@' {
		path = "\x00" + path[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte(state))
		if shut := c.Close(); err == nil {
			err = shut
		}
	}
	if err != nil {
		return fmt.Errorf("telling systemd: %w", err)
	}
	return nil
}
