package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

// ServiceName is that of the service in prefaces and ALPN.
const ServiceName = "ovs-raft"

// Address is where a member is reached.
type Address struct {
	Network, Address string    // as for net.Dial
	Host             uuid.UUID // the member's host
}

// Options for New. Member, Cluster, Peers, Dial and Belongs must be given, and FS for
// Fetch; the zero value of a limit is its default. Callbacks are called from any goroutine,
// must not block, and must not call the Transport.
type Options struct {
	Member  uint64    // this one; not 0
	Cluster uuid.UUID // of the group
	Group   string
	Life    uint64 // of the group

	// Peers says where a member is; false: there is no such member, and what is for it is
	// dropped. It is asked before each attempt to connect; see also Transport.Update.
	Peers func(member uint64) (Address, bool)
	// Dial makes the options of a connection to an address: TLS, Identity, and memory if it
	// is to be bounded. Service, Group, Life and cluster are set by the Transport, as are
	// Network and Address if they are empty. Unlike the others it may wait, within ctx.
	Dial func(ctx context.Context, a Address) (wire.DialOptions, error)
	// Belongs says whether a member belongs to whoever is at the other end, by its
	// certificate, or on a plain connection by what it claims.
	Belongs func(member uint64, p *wire.Peer) bool
	// Admit, if not nil, decides whether a peer may connect at all.
	Admit func(ctx context.Context, p *wire.Peer) error

	QueueMessages  int   // that wait for one member, in each stream; 4096
	QueueBytes     int64 // of appends that wait for one member, 64 MiB; one message more than that is taken
	FlightRequests int   // sent to one member and not answered, in each stream; 64
	FlightBytes    int64 // of those; 16 MiB; one request more than that is sent

	FS           disk.FS       // where Fetch writes
	FetchRate    int64         // bytes a second that all fetches take together; 200 MB/s
	FetchWait    time.Duration // without any progress, then a fetch fails; 30 s
	ServeReads   int           // of snapshots at a time, for all members together; others are told to come again; 16
	Redial, Most time.Duration // first and longest wait between two attempts to connect; 50 ms and 1 s

	Logger *slog.Logger // nil: none
}

func (o Options) withDefaults() (Options, error) {
	for _, d := range []struct {
		v  *int
		or int
	}{{&o.QueueMessages, 4096}, {&o.FlightRequests, 64}, {&o.ServeReads, 16}} {
		if *d.v == 0 {
			*d.v = d.or
		}
	}
	for _, d := range []struct {
		v  *int64
		or int64
	}{{&o.QueueBytes, 64 << 20}, {&o.FlightBytes, 16 << 20}, {&o.FetchRate, 200e6}} {
		if *d.v == 0 {
			*d.v = d.or
		}
	}
	for _, d := range []struct{ v, or *time.Duration }{
		{&o.FetchWait, new(30 * time.Second)}, {&o.Redial, new(50 * time.Millisecond)}, {&o.Most, new(time.Second)},
	} {
		if *d.v == 0 {
			*d.v = *d.or
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = o.Logger.With("group", o.Group, "member", o.Member)
	switch {
	case o.Member == 0 || o.Cluster == uuid.Nil:
		return o, errors.New("transport: Options.Member and Cluster must be given")
	case o.Peers == nil || o.Dial == nil || o.Belongs == nil:
		return o, errors.New("transport: Options.Peers, Dial and Belongs must be given")
	case min(o.QueueMessages, o.FlightRequests, o.ServeReads) < 1 || min(o.QueueBytes, o.FlightBytes, o.FetchRate) < 1:
		return o, errors.New("transport: a limit in Options is negative")
	case o.FlightRequests > flightMost:
		return o, fmt.Errorf("transport: Options.FlightRequests is %d, at most %d may be", o.FlightRequests, flightMost)
	case o.FlightBytes > heldBytesMost/2:
		return o, fmt.Errorf("transport: Options.FlightBytes is %d, at most %d may be: a receiver holds no more", o.FlightBytes, heldBytesMost/2)
	case o.FetchWait < 0 || o.Redial < 0 || o.Most < o.Redial:
		return o, fmt.Errorf("transport: Options.FetchWait, Redial and Most are %v, %v and %v; none may be negative, nor Most below Redial", o.FetchWait, o.Redial, o.Most)
	}
	return o, nil
}
