package membership

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"openvstorage/arakoon/roster"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

// The service "ovs-member", by which a steward has hosts make and drop members, and asks
// whether they are there. Little-endian.
//
// The header of a request:
//
//	0 1 version, 1
//	1 7 zero
//	8 8 member
//	16  name of the group, to the end
//
// Operations: 1 make, with the file of a roster (package roster) as the body, so that the host
// knows where the other members are; 2 drop; 3 ask, whose header is the version and 15 zeros.
// The status of an answer is 0, or 256 used, 257 failed; then its header says why, as text.
// These numbers never change.
const (
	Service = "ovs-member"

	opMake = 1
	opDrop = 2
	opAsk  = 3

	statusUsed   = wire.StatusService
	statusFailed = wire.StatusService + 1

	headVersion = 1
	headSize    = 16
	whyMax      = 1024
)

// ErrRequest: a request that no steward makes.
var ErrRequest = errors.New("not a request of this service")

// Keeper is a host as what makes and drops the members that are on it.
type Keeper interface {
	// Make makes a member, or confirms that it is there. r says where the others are. It
	// returns ErrUsed if the host has had the member before. It is durable on return.
	Make(ctx context.Context, group string, member uint64, r *roster.Roster) error
	// Drop asks the group whether the member was removed, and if so deletes it.
	Drop(ctx context.Context, group string, member uint64) error
}

// NewService is what a host offers to stewards of its cluster. admit says whether a peer may
// be one.
func NewService(cluster uuid.UUID, k Keeper, admit func(context.Context, *wire.Peer) error) *wire.Service {
	return &wire.Service{Admit: admit, Handler: wire.HandlerFunc(func(ctx context.Context, in *wire.Incoming) wire.Answer {
		return serve(ctx, cluster, k, in)
	})}
}

func serve(ctx context.Context, cluster uuid.UUID, k Keeper, in *wire.Incoming) wire.Answer {
	group, member, err := decodeRequest(in.Op, in.Header)
	if err == nil {
		switch in.Op {
		case opMake:
			var r *roster.Roster
			if r, err = roster.Decode(in.Body, cluster); err == nil {
				err = k.Make(ctx, group, member, r)
			}
		case opDrop:
			err = k.Drop(ctx, group, member)
		case opAsk:
		default:
			return wire.Answer{Status: uint16(wire.CodeUnknownOp)}
		}
	}
	switch {
	case err == nil:
		return wire.Answer{}
	case errors.Is(err, ErrUsed):
		return wire.Answer{Status: statusUsed, Header: why(err)}
	}
	return wire.Answer{Status: statusFailed, Header: why(err)}
}

func why(err error) []byte {
	s := err.Error()
	return []byte(s[:min(len(s), whyMax)])
}

func appendRequest(dst []byte, group string, member uint64) []byte {
	dst = append(dst, headVersion, 0, 0, 0, 0, 0, 0, 0)
	return append(binary.LittleEndian.AppendUint64(dst, member), group...)
}

func decodeRequest(op uint16, b []byte) (group string, member uint64, err error) {
	if len(b) < headSize || len(b) > headSize+roster.NameMax {
		return "", 0, fmt.Errorf("%w: a header of %d bytes", ErrRequest, len(b))
	}
	for i, v := range b[1:8] {
		if v != 0 {
			return "", 0, fmt.Errorf("%w: byte %d of its header is %#x: it may be of a later release", ErrRequest, i+1, v)
		}
	}
	if b[0] != headVersion {
		return "", 0, fmt.Errorf("%w: version %d; this release speaks %d", ErrRequest, b[0], headVersion)
	}
	group, member = string(b[headSize:]), binary.LittleEndian.Uint64(b[8:])
	if (op == opAsk) != (group == "" && member == 0) {
		return "", 0, fmt.Errorf("%w: operation %d with group %q and member %d", ErrRequest, op, group, member)
	}
	return group, member, nil
}
