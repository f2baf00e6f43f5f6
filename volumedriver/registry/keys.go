package registry

import (
	"context"

	"github.com/google/uuid"

	"openvstorage/internal/keyswap"
)

// Keys is the replicated store that a registry keeps its records in: an
// Arakoon group, through package host/registrykeys. Its methods are safe for
// concurrent use, and reads see every swap that was answered before.
//
// Errors match ErrFailed when nobody can tell any more what is stored, and
// ErrClosed when the store is closed.
type Keys interface {
	// Get returns the value of a key, nil if it is absent.
	Get(ctx context.Context, key []byte) ([]byte, error)
	// Range calls fn with all keys that begin with prefix, in order and at one
	// moment, until it returns false. fn may keep the slices.
	Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error
	// Swap makes all swaps if every key has its old value, and otherwise none
	// and returns false. What it made is durable and visible on return. Once it
	// has begun, the end of ctx does not end it. After an error that does not
	// match ErrNotSwapped it may have been made, or may be made yet.
	Swap(ctx context.Context, swaps []Swap) (bool, error)
	// Settle returns when every swap that was begun before has been made or
	// never will be: reads then tell which.
	Settle(ctx context.Context) error
}

// Swap gives a key a new value in place of the old one.
type Swap = keyswap.Swap

// Keys of a registry. Numbers are in the values; see record.go.
//
//	vdisk/F          features: what a release must know to change anything
//	vdisk/M          meta: how many records there are
//	vdisk/I id16     record of the vDisk
//	vdisk/N name     id of the vDisk with the name (bare)
//	vdisk/H host16   entry of a host that uses the registry; see hosts.go
//	vdisk/J id16     intent: the vDisk is being made, or what was made of it is being removed; see intent.go
const (
	featuresKey  = "vdisk/F"
	metaKey      = "vdisk/M"
	idPrefix     = "vdisk/I"
	namePrefix   = "vdisk/N"
	hostPrefix   = "vdisk/H"
	intentPrefix = "vdisk/J"
)

func idKey(id uuid.UUID) []byte     { return append([]byte(idPrefix), id[:]...) }
func nameKey(name string) []byte    { return append([]byte(namePrefix), name...) }
func hostKey(id uuid.UUID) []byte   { return append([]byte(hostPrefix), id[:]...) }
func intentKey(id uuid.UUID) []byte { return append([]byte(intentPrefix), id[:]...) }
