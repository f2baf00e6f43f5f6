package writebuffer

// The append section keeps the files that are prepared for it. A buffer that lacks
// files or descriptors takes them back from a log that rests.

// offerSCO takes a prepared SCO.
func (a *section) offerSCO(s *SCO) {
	a.next = s
	a.ready.Send()
}

// offerTLog takes a prepared TLog, and leaves a mark in it that waits for one.
func (a *section) offerTLog(t *openTLog) error {
	a.nextTL = t
	err := a.markNext()
	a.ready.Send()
	return err
}

// rests reports whether nobody writes or is about to.
func (a *section) rests() bool { return a.open == nil && len(a.pending) == 0 && a.lacking == 0 }

// half reports whether nothing is open, and one of the two files that a first write
// needs is there without the other.
func (a *section) half() bool {
	return a.open == nil && len(a.pending) == 0 && (a.next == nil || a.nextTL == nil)
}

// missing returns how many files are to be prepared.
func (a *section) missing() (n int) {
	if a.next == nil {
		n++
	}
	if a.nextTL == nil {
		n++
	}
	return n
}

// takeNext gives the prepared SCO away, if there is one.
func (a *section) takeNext() *SCO {
	s := a.next
	a.next = nil
	return s
}

// takePrepared gives both prepared files away.
func (a *section) takePrepared() (*SCO, *openTLog) {
	t := a.nextTL
	a.nextTL = nil
	return a.takeNext(), t
}

// slowNext returns the prepared SCO if it is worth it to replace it by a pre-written
// one, or nil.
func (a *section) slowNext() *SCO {
	if a.next == nil || !a.next.sparse || !a.wantFast {
		return nil
	}
	return a.next
}

// replaceNext puts s in the place of old, and returns the one that is not used.
func (a *section) replaceNext(old, s *SCO) *SCO {
	if a.next != old {
		return s
	}
	a.next = s
	return old
}
