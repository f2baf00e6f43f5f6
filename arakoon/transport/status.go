package transport

import (
	"errors"
	"fmt"

	"openvstorage/arakoon"
	"openvstorage/internal/wire"
)

// Status is the answer to a request that was not done. Numbers never change.
type Status uint16

// Statuses, from wire.StatusService on.
const (
	StatusMember   Status = wire.StatusService + iota // it is from, or for, another member than the connection's hosts have
	StatusLife                                        // the group is not here any more, or in another life
	StatusNewer                                       // of a version that the receiver does not read
	StatusCorrupt                                     // it cannot be decoded
	StatusEnded                                       // the member that it is for has failed or was closed
	StatusOrder                                       // too many came before the one that they follow
	StatusSnapshot                                    // there is no such snapshot, or no such file in it
	StatusRead                                        // a file of a snapshot could not be read
)

// Errors of requests that were refused, by the same names.
var (
	ErrMember   = errors.New("not a member of this host")
	ErrLife     = errors.New("another life of the group")
	ErrNewer    = errors.New("of a newer release")
	ErrCorrupt  = errors.New("request corrupt")
	ErrEnded    = errors.New("member has ended")
	ErrOrder    = errors.New("out of order")
	ErrSnapshot = arakoon.ErrNoSnapshot
	ErrRead     = errors.New("snapshot cannot be read")
)

var statuses = map[Status]error{
	StatusMember: ErrMember, StatusLife: ErrLife, StatusNewer: ErrNewer, StatusCorrupt: ErrCorrupt,
	StatusEnded: ErrEnded, StatusOrder: ErrOrder, StatusSnapshot: ErrSnapshot, StatusRead: ErrRead,
}

// err is the named error of a status.
func (s Status) err() error {
	if err := statuses[s]; err != nil {
		return err
	}
	return fmt.Errorf("refused with a status that this release does not know, %d", uint16(s))
}

// statusOf is the status for an error, StatusCorrupt for one without a name. That a snapshot
// is gone says more than that it could not be read.
func statusOf(err error) Status {
	if errors.Is(err, ErrSnapshot) {
		return StatusSnapshot
	}
	for s, named := range statuses {
		if errors.Is(err, named) {
			return s
		}
	}
	return StatusCorrupt
}
