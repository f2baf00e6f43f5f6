package stamp

import (
	"context"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
)

// Client is a Conn to an NBD export.
type Client struct {
	*nbdclient.Client
}

// Dial opens n connections to an export on a unix socket.
func Dial(ctx context.Context, socket, export string, n int) ([]Client, error) {
	var clients []Client
	for range n {
		c, err := nbdclient.Dial(ctx, "unix", socket, nbdclient.Options{Export: export})
		if err != nil {
			Hangup(clients)
			return nil, err
		}
		clients = append(clients, Client{c})
	}
	return clients, nil
}

// Hangup closes connections as a killed client does.
func Hangup(clients []Client) {
	for _, c := range clients {
		c.Abort()
	}
}

// Conns are the clients for Run.
func Conns(clients []Client) []Conn {
	var conns []Conn
	for _, c := range clients {
		conns = append(conns, c)
	}
	return conns
}

// Readings are the clients for Verify.
func Readings(clients []Client) []Reading {
	var readings []Reading
	for _, c := range clients {
		readings = append(readings, c)
	}
	return readings
}

// Write writes p at off.
func (c Client) Write(p []byte, off int64, fua bool) error {
	r := nbdclient.Request{Type: nbd.CmdWrite, Offset: uint64(off), Data: p}
	if fua {
		r.Flags = nbd.FlagFUA
	}
	return c.Do(&r)
}
