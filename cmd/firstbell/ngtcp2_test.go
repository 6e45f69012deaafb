package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNgtcp2AsksOverHTTP3 has a client of another library ask for a lesson, and
// try what ours does not: to move to another port, to change its keys, to speak
// another version first, to lose packets, and to bring back ticket and token.
func TestNgtcp2AsksOverHTTP3(t *testing.T) {
	client := need(t, "gtlsclient", "apt-get install ngtcp2-client")
	file, _ := writeHTTP3File(t, newOrigin(t).URL, "hangang.school.example")
	r := serve(t, file)
	host, port, err := net.SplitHostPort(r.http3)
	if err != nil {
		t.Fatal(err)
	}
	kept := t.TempDir()
	ticket := []string{"--session-file=" + filepath.Join(kept, "session"), "--tp-file=" + filepath.Join(kept, "parameters"), "--token-file=" + filepath.Join(kept, "token")}
	for _, c := range []struct {
		name string
		args []string
		want string // that it says; "": nothing more than the answer
	}{
		{"plainly", nil, ""},
		{"with ChaCha20", []string{"--ciphers=NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305"}, ""},
		{"twice at once", []string{"-n2"}, ""},
		{"from another port", []string{"--change-local-addr=50ms", "--nat-rebinding", "--delay-stream=200ms"}, "Changing local address"},
		{"with new keys", []string{"--key-update=50ms", "--delay-stream=200ms"}, "key update confirmed"},
		{"with another version first", []string{"-v0x1a2a3a4a", "--preferred-versions=v1"}, "type=VN"},
		{"losing packets", []string{"--tx-loss=0.1", "--rx-loss=0.1"}, ""},
		{"to get a ticket and a token", append(ticket, "--delay-stream=200ms"), ""},
		{"with a ticket and a token", append(ticket, "--disable-early-data"), ""},
		{"early", ticket, "Early data was rejected by server"},
	} {
		out := t.TempDir()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		args := append([]string{"--exit-on-all-streams-close", "--timeout=20s", "--sni=hangang.school.example", "--download=" + out}, c.args...)
		said, err := exec.CommandContext(ctx, client, append(args, host, port, "https://hangang.school.example/lessons/1")...).CombinedOutput()
		cancel()
		got, _ := os.ReadFile(filepath.Join(out, "1"))
		if err != nil || string(got) != "this is /lessons/1\n" || !strings.Contains(string(said), c.want) {
			t.Errorf("%s: got %q, %v; want the lesson\n%s", c.name, got, err, said)
		}
	}
}
