package host

import (
	"fmt"
	"net"
	"os"
)

// States of a service, as systemd knows them.
const (
	stateReady    = "READY=1"
	stateStopping = "STOPPING=1"
)

// notify tells systemd what state this is in, if it wants to know: one datagram
// to the socket that it names in the environment.
func notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", name)
	if err != nil {
		return fmt.Errorf("tell systemd %s: %w", state, err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell systemd %s: %w", state, err)
	}
	return nil
}
