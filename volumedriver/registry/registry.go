// Package registry keeps the names, owners and epochs of vDisks: which id a name stands
// for, which host has the vDisk, and how often it was claimed. Several hosts may use one
// registry.
//
// Each open of a vDisk claims its next epoch here (promise P4). From then on the
// catalog, which carries the newer epoch, refuses what an older owner still tries. There
// is one epoch: that of the record, which the owner puts into the catalog. A host claims
// what it has, or what nobody has; what another host has it claims only if it says from
// which epoch it takes over (O12). All that an owner changes here is conditional on its
// host and its epoch (Holder), so that a stale owner changes nothing (ErrNotOwner).
//
// A vDisk is made in several durable steps, of which its record is the last. An Intent
// comes before the first, and goes in the same step in which the record comes. So what
// is half made has a durable owner too: nobody else touches it, and whoever is to clean
// up takes the intent first, after which its maker cannot finish it any more.
//
// The records are kept on an Arakoon group, one key each, with an index by name. All
// that the registry knows of the group is the interface Keys. What an older release
// kept in files is imported once.
package registry

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"openvstorage/internal/naming"
)

// Bounds.
const (
	NameMax    = naming.NameMax // bytes of a name
	OwnerMax   = 255            // bytes of an owner
	RecordsMax = 65536          // vDisks in one registry
)

// Errors that callers match with errors.Is.
var (
	ErrNotFound  = errors.New("no such vDisk")
	ErrNameTaken = errors.New("name is taken")
	ErrIDTaken   = errors.New("id is taken")
	ErrName      = errors.New("not a name for a vDisk")
	ErrFull      = errors.New("registry is full")
	ErrMany      = errors.New("too many vDisks to be renamed in one step")
	ErrClosed    = errors.New("registry is closed")
	// ErrNotOwner: another host has the vDisk or the intent, or the same host has claimed
	// it anew since. A NotOwnerError says which.
	ErrNotOwner = errors.New("it has another owner")
	// ErrFailed: a sync failed, and what is on the medium is not known. No change is
	// accepted until what the registry is kept in was opened anew.
	ErrFailed = errors.New("registry takes no changes: what it is kept in has failed, and must be opened anew")
	// ErrNotSwapped: a swap was not made and never will be. Keys return it.
	ErrNotSwapped = errors.New("nothing was changed")
	// ErrUnknownOutcome: it is not known yet whether the change was made; it may even
	// be made later. The next call on the registry finds out first, and what it then
	// reads is final.
	ErrUnknownOutcome = errors.New("the registry has not answered: the outcome is unknown")
	// ErrImport: the files of an older release were imported in part, or do not belong
	// to this registry.
	ErrImport = errors.New("registry files of an older release are not imported")
)

// Record is one vDisk.
type Record struct {
	ID       uuid.UUID // for life; also names its backend namespace
	Name     string    // unique; may change
	Epoch    uint64    // of the last claim, 0 if it was never opened
	Owner    string    // which process made the last claim, for people
	Host     uuid.UUID // that made the last claim; zero: an older release did, on the founder
	Released bool      // nobody has it: whoever claims it gets it
	Created  time.Time
	Parent   uuid.UUID // the vDisk that it was cloned from, zero if none
	Deleting bool      // being deleted: it keeps its name until that is finished
}

// Holder is who has the vDisk, as a later change of the owner has to say it.
func (r Record) Holder() Holder { return Holder{r.Host, r.Epoch} }

// ValidateName returns nil if a vDisk may get the name, by the rule of package
// naming. Other names are refused with ErrName and the reason.
func ValidateName(name string) error { return named(naming.Check(name)) }

// validateKept returns nil if a vDisk may have the name already: earlier releases gave
// names that are not given any more.
func validateKept(name string) error { return named(naming.CheckKept(name)) }

func named(err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", ErrName, err)
	}
	return nil
}

// validate checks a record by itself.
func (r *Record) validate() error {
	if r.ID == uuid.Nil {
		return fmt.Errorf("vDisk %q: no id", r.Name)
	}
	if len(r.Owner) > OwnerMax {
		return fmt.Errorf("vDisk %q: an owner of %d bytes, %d are allowed", r.Name, len(r.Owner), OwnerMax)
	}
	return validateKept(r.Name)
}
