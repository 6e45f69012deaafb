package ports

import (
	"net"
	"testing"
)

func TestAPortIsFreeAndGivenOutOnce(t *testing.T) {
	seen := make(map[int]bool)
	for range 200 {
		port, err := Free()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] || port < first || port >= first+span {
			t.Errorf("got %d, want another one from %d to %d", port, first, first+span-1)
		}
		seen[port] = true
	}
	address, err := FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("nobody should listen there: %v", err)
	}
	defer ln.Close()
	if err := try(ln.Addr().(*net.TCPAddr).Port); err == nil {
		t.Error("a port that is taken was found free")
	}
}
