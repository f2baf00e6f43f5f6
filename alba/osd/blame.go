package osd

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// Blame says what the error of a call says of its OSD.
type Blame uint8

// What an error may say.
const (
	// Nobody: nothing of the OSD. The request was given up, was not allowed, was about a key
	// that is not there, or the caller's machine lacked something. Another OSD would have
	// done no better.
	Nobody Blame = iota
	// OneValue: a value on it is bad, or does not come off the medium. Others may be well.
	OneValue
	// NoRoom: it is full, which is no fault. Deletes and reads go on.
	NoRoom
	// Refuses: it takes no writes and says so itself (Usage.ReadOnly). Reads go on.
	Refuses
	// Away: it was not asked, or its answer was lost on the way. Its disk may be well.
	Away
	// AtFault: the OSD or its disk has failed. Only this counts against its health.
	AtFault
)

func (b Blame) String() string {
	return [...]string{"nobody", "one value", "no room", "refuses", "away", "at fault"}[b]
}

// blames is the one place where it is decided what counts against an OSD. An error may match
// several rows: the first one is what it is. An error that matches none is AtFault.
//
// What one namespace, one object or one caller can bring about at will is never AtFault: else a
// single bad one would have a disk left alone that serves all the others well.
var blames = []struct {
	err   error
	blame Blame
	bad   bool // of a Read: the value that was asked for is missing or bad
}{
	{context.Canceled, Nobody, false},
	{context.DeadlineExceeded, Nobody, false},
	{ErrAssert, Nobody, false},
	{ErrNotFound, Nobody, true},
	{ErrInvalid, Nobody, true}, // the value is shorter than its manifest says
	{ErrCorrupt, OneValue, true},
	{ErrReadOnly, Refuses, false}, // before ErrUnreadable, which may be the reason for it
	{ErrUnreadable, OneValue, true},
	{ErrFull, NoRoom, false},
	{ErrBusy, Away, false},
	{ErrUnreachable, Away, false},
	{ErrCut, Away, false},
	{ErrClosed, Away, false},
	{unix.EMFILE, Nobody, false},
	{unix.ENFILE, Nobody, false},
	{unix.ENOMEM, Nobody, false},
}

// BlameOf returns what an error says of the OSD whose call returned it; nil says Nobody.
func BlameOf(err error) Blame {
	if err == nil {
		return Nobody
	}
	for i := range blames {
		if errors.Is(err, blames[i].err) {
			return blames[i].blame
		}
	}
	return AtFault
}

// BadValue reports whether the error of a Read says that the value is missing or bad. The error
// of an OSD that does not answer says nothing of the value.
func BadValue(err error) bool {
	if err == nil {
		return false
	}
	for i := range blames {
		if errors.Is(err, blames[i].err) {
			return blames[i].bad
		}
	}
	return false
}
