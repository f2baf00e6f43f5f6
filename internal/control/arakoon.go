package control

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// Limits of calls about Arakoon groups.
const (
	// KeyRequestMax is how many bytes a request may have that brings values.
	KeyRequestMax = 48 << 20
	// largeCalls is how many calls may have requests above RequestMax at once.
	largeCalls = 2
	// streamCalls is how many watches and backups may run at once.
	streamCalls = 16
)

// Arakoon is what the server shows and manages of the Arakoon groups that the process has
// members of. All methods are safe for concurrent use. What a method has changed is durable
// when it returns nil. Errors match a kind of this package, or are failures. Keys and values
// are any bytes; in JSON they are in base64.
type Arakoon interface {
	// Groups says how all groups are, or the one that is named.
	Groups(ctx context.Context, group string) ([]ArakoonGroup, error)
	Get(ctx context.Context, r KeyRead) (KeyValue, error)
	Exists(ctx context.Context, r KeyRead) (bool, error)
	Range(ctx context.Context, r KeyRange) (KeyPage, error)
	Count(ctx context.Context, r KeyRange) (uint64, error)
	Write(ctx context.Context, w KeyWrite) (KeyWritten, error)
	// Watch calls tell with what happens, until that fails, ctx ends, or the group does.
	Watch(ctx context.Context, w KeyWatch, tell func(KeyEvents) error) error
	Leases(ctx context.Context, group string) ([]ArakoonLease, error)
	// Transfer gives the lead to another member, to the best other one if to is 0, and
	// returns who leads then.
	Transfer(ctx context.Context, group string, to uint64) (uint64, error)
	// Levels says which levels the groups have, and what their members know.
	Levels(ctx context.Context) (ArakoonLevels, error)
	// Raise brings a group to a level, all groups if group is "", for good. A level of 0 is the
	// newest that all members know.
	Raise(ctx context.Context, group string, level uint32) (ArakoonLevels, error)
	// Zones says how the groups stand to the zones that must hold everything.
	Zones(ctx context.Context) ([]ArakoonZones, error)
	// RequireZones sets in how many zones all groups must hold everything, 1 for no
	// requirement. What is not in force when it returns comes by itself.
	RequireZones(ctx context.Context, zones int) ([]ArakoonZones, error)
	// Lose says what AssertZones would give up, and changes nothing.
	Lose(ctx context.Context, zones int) (ArakoonLoss, error)
	// AssertZones lowers that, on the word of a person that the other zones are off for good, and
	// ends the membership of their hosts: those that the person was shown.
	AssertZones(ctx context.Context, zones int, lost []uuid.UUID) (ArakoonLoss, error)
	// Hash compares the states of the members of a group at one revision.
	Hash(ctx context.Context, group string) (ArakoonHashes, error)
	// Backup calls write with a backup of a group, piece by piece. If group is "" it does
	// that for all groups, one after the other, of states that were there at one instant.
	Backup(ctx context.Context, group string, write func(group string, piece []byte) error) ([]ArakoonBackup, error)
}

// ArakoonGroup is a group, as the member in this process sees it.
type ArakoonGroup struct {
	Group    string `json:"group"`
	Member   uint64 `json:"member"` // in this process
	Role     string `json:"role"`
	Term     uint64 `json:"term"`
	Leader   uint64 `json:"leader"` // 0: none is known
	Commit   uint64 `json:"commit"`
	Applied  uint64 `json:"applied"`
	Level    uint32 `json:"level"`
	Obstacle string `json:"obstacle,omitempty"` // why writes would not go on, as far as is known
	Full     bool   `json:"full"`               // it waits for room

	Voters   []uint64        `json:"voters"`
	Learners []uint64        `json:"learners,omitempty"`
	Outgoing []uint64        `json:"outgoing,omitempty"`
	Members  []ArakoonMember `json:"members"` // on the leader alone

	LogBytes   int64  `json:"logBytes"`
	StateBytes uint64 `json:"stateBytes"`
	Watchers   int    `json:"watchers"`
	Sessions   int    `json:"sessions"`
	Leases     int    `json:"leases"`

	Since        *time.Time `json:"masterSince,omitempty"` // absent: nobody is known to lead
	Elections    uint64     `json:"elections"`             // that this member stood in since its start
	LastElection *time.Time `json:"lastElection,omitempty"`
	Changes      uint64     `json:"masterChanges"` // since its start

	Zones    int            `json:"zones,omitempty"`    // that must hold everything; absent: no requirement
	Compared *ArakoonHashes `json:"compared,omitempty"` // the states, last; absent: never
}

// ArakoonMember is a member, as the leader sees it.
type ArakoonMember struct {
	Member  uint64 `json:"member"`
	Match   uint64 `json:"match"`
	Lag     uint64 `json:"lag"` // entries
	State   string `json:"state"`
	Active  bool   `json:"active"` // heard from lately
	Learner bool   `json:"learner"`
	Zone    string `json:"zone,omitempty"`
}

// KeyRead asks for a key.
type KeyRead struct {
	Group   string `json:"group"`
	Key     []byte `json:"key"`
	Local   bool   `json:"local,omitempty"`   // as this member has it, however old that is
	AtLeast uint64 `json:"atLeast,omitempty"` // a revision that must be seen; 0: all that was answered
}

// KeyValue is a key and its value.
type KeyValue struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value,omitempty"` // absent if only keys were asked for
}

// KeyRange asks for the keys from First on and before Last, or for those with a prefix.
type KeyRange struct {
	Group    string `json:"group"`
	First    []byte `json:"first,omitempty"`
	Last     []byte `json:"last,omitempty"` // absent: to the end
	Prefix   []byte `json:"prefix,omitempty"`
	Reverse  bool   `json:"reverse,omitempty"`
	KeysOnly bool   `json:"keysOnly,omitempty"`
	Limit    int    `json:"limit,omitempty"` // 0: no limit but that of an answer
	Local    bool   `json:"local,omitempty"`
	AtLeast  uint64 `json:"atLeast,omitempty"`
}

// KeyPage is what a range has, as far as one answer holds it.
type KeyPage struct {
	Entries []KeyValue `json:"entries"`
	More    bool       `json:"more"` // there are others behind the last
}

// Actions of a KeyWrite.
const (
	ActionSet          = "set"
	ActionDelete       = "delete"
	ActionConfirm      = "confirm"      // set, unless it has the value already
	ActionReplace      = "replace"      // set, or delete without a value; tells the old value
	ActionTestAndSet   = "test-and-set" // the same if the value is as expected
	ActionDeletePrefix = "delete-prefix"
)

// KeyWrite changes a key, or all with a prefix.
type KeyWrite struct {
	Group  string `json:"group"`
	Action string `json:"action"`
	Key    []byte `json:"key"`
	// Value is what the key is set to, and Expected what it must have before. Absent: none.
	Value    *[]byte `json:"value,omitempty"`
	Expected *[]byte `json:"expected,omitempty"`
	// Known says that whoever asks knows that the records of this group belong together, and
	// that changing one by hand can lose data.
	Known bool `json:"known,omitempty"`
}

// KeyWritten is what a write did.
type KeyWritten struct {
	Revision uint64 `json:"revision"`
	// Changed is absent where the action does not tell: of test-and-set and confirm it says
	// whether the key was set.
	Changed *bool   `json:"changed,omitempty"`
	Old     *[]byte `json:"old,omitempty"`   // absent: there was none, or the action does not tell
	Count   *uint64 `json:"count,omitempty"` // of delete-prefix: keys that were deleted
}

// KeyWatch asks for what happens to keys with a prefix, from a revision on; 0: from now.
type KeyWatch struct {
	Group  string `json:"group"`
	Prefix []byte `json:"prefix,omitempty"`
	From   uint64 `json:"from,omitempty"`
}

// KeyEvents are all events of one revision. Without any it says that all up to there was
// told.
type KeyEvents struct {
	Revision uint64     `json:"revision"`
	Events   []KeyEvent `json:"events"`
}

// KeyEvent is a change of one key.
type KeyEvent struct {
	Key     []byte `json:"key"`
	Value   []byte `json:"value,omitempty"`
	Deleted bool   `json:"deleted,omitempty"`
}

// ArakoonLease is a lease that is held.
type ArakoonLease struct {
	Name    string        `json:"name"`
	Owner   uuid.UUID     `json:"owner"`
	Fence   uint64        `json:"fence"`
	Renewed uint64        `json:"renewed"` // revision
	TTL     time.Duration `json:"ttl"`     // nanoseconds
}

// ArakoonZones is how a group stands to the zones that must hold everything.
type ArakoonZones struct {
	Group    string   `json:"group"`
	Wanted   int      `json:"wanted"`             // by the roster; 0: nobody has said anything
	Required int      `json:"required"`           // by the group, now; up to 1: none
	InForce  bool     `json:"inForce"`            // what is wanted is required
	Since    uint64   `json:"since,omitempty"`    // revision
	Lowered  uint64   `json:"lowered,omitempty"`  // revision of the last lowering
	From     int      `json:"from,omitempty"`     // zones that were required before that
	Asserted bool     `json:"asserted,omitempty"` // a person said then that the other zones were off
	Zones    []string `json:"zones,omitempty"`    // that its members are in
	Error    string   `json:"error,omitempty"`    // why its master could not be asked
}

// ArakoonLoss is what is given up when a requirement is lowered without the zones that are away.
type ArakoonLoss struct {
	Zones  []string       `json:"zones"` // of which no member is heard from
	Hosts  []LostHost     `json:"hosts"` // that are given up
	Groups []ArakoonZones `json:"groups"`
}

// LostHost is a host that is given up with its zone.
type LostHost struct {
	ID        uuid.UUID `json:"id"`
	Zone      string    `json:"zone"`
	Addresses []string  `json:"addresses"`
	First     bool      `json:"first,omitempty"`   // it has the cluster's disks and vDisks
	Members   []string  `json:"members,omitempty"` // as GROUP/NUMBER
	State     string    `json:"state"`
}

// ArakoonLevels are the levels of groups, and of the releases that hosts run now.
type ArakoonLevels struct {
	Groups []ArakoonLevel `json:"groups"`
	Hosts  []LevelKnown   `json:"hosts,omitempty"` // without members
	// Raise is the newest level that all members and hosts know; 0: one does not answer.
	Raise uint32 `json:"raise"`
}

// ArakoonLevel is the level of a group, and what its members know.
type ArakoonLevel struct {
	Group   string       `json:"group"`
	Level   uint32       `json:"level"`
	Members []LevelKnown `json:"members"`
}

// LevelKnown is the newest level that a member's process knows, or a host's.
type LevelKnown struct {
	Member uint64    `json:"member,omitempty"` // absent: the host holds none
	Host   uuid.UUID `json:"host"`
	Knows  uint32    `json:"knows"`           // 0: see Error
	Error  string    `json:"error,omitempty"` // why it does not say
}

// ArakoonHashes are the hashes of the members' states at one revision.
type ArakoonHashes struct {
	Group    string        `json:"group"`
	Revision uint64        `json:"revision"`
	Time     time.Time     `json:"time"`
	Equal    bool          `json:"equal"` // those that answered
	Members  []ArakoonHash `json:"members"`
}

// ArakoonHash is that of one member.
type ArakoonHash struct {
	Member uint64 `json:"member"`
	Hash   string `json:"hash,omitempty"`  // in hex
	Error  string `json:"error,omitempty"` // why there is none
}

// ArakoonBackup is what a backup is of.
type ArakoonBackup struct {
	Group    string `json:"group"`
	Revision uint64 `json:"revision"`
	Bytes    int64  `json:"bytes"`
}

// backupPiece is what a backup sends piece by piece.
type backupPiece struct {
	Group string `json:"group"`
	Piece []byte `json:"piece"`
}

// Requests about groups.
type (
	groupRequest struct {
		Group string `json:"group,omitempty"`
	}
	zonesRequest struct {
		Zones int `json:"zones"`
	}
	assertRequest struct {
		Zones int         `json:"zones"`
		Lost  []uuid.UUID `json:"lost"`
	}
	raiseRequest struct {
		Group string `json:"group,omitempty"` // absent: all
		Level uint32 `json:"level,omitempty"`
	}
	transferRequest struct {
		Group string `json:"group"`
		To    uint64 `json:"to,omitempty"`
	}
)

// errNoGroups is what calls get when the process has no groups.
var errNoGroups = fmt.Errorf("%w: this process has no members of Arakoon groups", ErrInvalid)

func (s *Server) arakoonRoutes(mux *http.ServeMux) {
	handle(s, mux, "arakoon/status", handleGroups(func(a Arakoon, ctx context.Context, r groupRequest) ([]ArakoonGroup, error) {
		return a.Groups(ctx, r.Group)
	}, s))
	handle(s, mux, "arakoon/get", handleGroups(func(a Arakoon, ctx context.Context, r KeyRead) (KeyValue, error) { return a.Get(ctx, r) }, s))
	handle(s, mux, "arakoon/exists", handleGroups(func(a Arakoon, ctx context.Context, r KeyRead) (bool, error) { return a.Exists(ctx, r) }, s))
	handle(s, mux, "arakoon/range", handleGroups(func(a Arakoon, ctx context.Context, r KeyRange) (KeyPage, error) { return a.Range(ctx, r) }, s))
	handle(s, mux, "arakoon/count", handleGroups(func(a Arakoon, ctx context.Context, r KeyRange) (uint64, error) { return a.Count(ctx, r) }, s))
	handle(s, mux, "arakoon/write", handleGroups(func(a Arakoon, ctx context.Context, r KeyWrite) (KeyWritten, error) { return a.Write(ctx, r) }, s))
	handle(s, mux, "arakoon/leases", handleGroups(func(a Arakoon, ctx context.Context, r groupRequest) ([]ArakoonLease, error) {
		return a.Leases(ctx, r.Group)
	}, s))
	handle(s, mux, "arakoon/transfer", handleGroups(func(a Arakoon, ctx context.Context, r transferRequest) (uint64, error) {
		return a.Transfer(ctx, r.Group, r.To)
	}, s))
	handle(s, mux, "arakoon/levels", handleGroups(func(a Arakoon, ctx context.Context, _ struct{}) (ArakoonLevels, error) { return a.Levels(ctx) }, s))
	handle(s, mux, "arakoon/raise", handleGroups(func(a Arakoon, ctx context.Context, r raiseRequest) (ArakoonLevels, error) {
		return a.Raise(ctx, r.Group, r.Level)
	}, s))
	handle(s, mux, "arakoon/zones", handleGroups(func(a Arakoon, ctx context.Context, _ struct{}) ([]ArakoonZones, error) { return a.Zones(ctx) }, s))
	handle(s, mux, "arakoon/require-zones", handleGroups(func(a Arakoon, ctx context.Context, r zonesRequest) ([]ArakoonZones, error) {
		return a.RequireZones(ctx, r.Zones)
	}, s))
	handle(s, mux, "arakoon/loss", handleGroups(func(a Arakoon, ctx context.Context, r zonesRequest) (ArakoonLoss, error) {
		return a.Lose(ctx, r.Zones)
	}, s))
	handle(s, mux, "arakoon/recover", handleGroups(func(a Arakoon, ctx context.Context, r assertRequest) (ArakoonLoss, error) {
		return a.AssertZones(ctx, r.Zones, r.Lost)
	}, s))
	handle(s, mux, "arakoon/hash", handleGroups(func(a Arakoon, ctx context.Context, r groupRequest) (ArakoonHashes, error) {
		return a.Hash(ctx, r.Group)
	}, s))
	handleStream(s, mux, "arakoon/watch", func(ctx context.Context, r KeyWatch, tell func(KeyEvents) error) (done, error) {
		if s.opt.Arakoon == nil {
			return done{}, errNoGroups
		}
		return done{}, s.opt.Arakoon.Watch(ctx, r, tell)
	})
	handleStream(s, mux, "arakoon/backup", func(ctx context.Context, r groupRequest, tell func(backupPiece) error) ([]ArakoonBackup, error) {
		if s.opt.Arakoon == nil {
			return nil, errNoGroups
		}
		return s.opt.Arakoon.Backup(ctx, r.Group, func(group string, piece []byte) error { return tell(backupPiece{group, piece}) })
	})
}

// handleGroups routes one call about the groups.
func handleGroups[Request, Result any](fn func(Arakoon, context.Context, Request) (Result, error), s *Server) func(context.Context, Request, progressFunc) (Result, error) {
	return func(ctx context.Context, r Request, _ progressFunc) (Result, error) {
		if s.opt.Arakoon == nil {
			var none Result
			return none, errNoGroups
		}
		return fn(s.opt.Arakoon, ctx, r)
	}
}
