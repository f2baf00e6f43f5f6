package arakoon

import (
	"fmt"
	"sync"

	"openvstorage/arakoon/state"
)

// proposal is a command that a client waits for.
type proposal struct {
	command state.Command
	done    chan answer // has room for the one answer that it gets
}

type answer struct {
	outcome state.Outcome
	err     error
}

// proposals are the commands under way: from their admission until they are
// answered. A batch of them is one entry of the log.
type proposals struct {
	most      int   // at once
	mostBytes int64 // of those; a single one may be longer

	mu      sync.Mutex
	ended   error // why no more are admitted, nil while the node runs
	count   int
	bytes   int64
	batches map[uint64][]*proposal // handed to raft, by number of the batch
}

// admit counts a proposal in. After an error it was not, and nothing was done.
func (s *proposals) admit(p *proposal) error {
	size := int64(p.command.Size())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return s.ended
	}
	if s.count >= s.most || s.count > 0 && s.bytes+size > s.mostBytes {
		return fmt.Errorf("%w: %d proposals of %d bytes are under way", ErrBusy, s.count, s.bytes)
	}
	s.count++
	s.bytes += size
	return nil
}

// expect notes that a batch is about to be handed to raft, before it is: its entry
// may be applied before raft returns. It reports false if the node ends, and then it
// has answered the batch, which must not be handed on.
func (s *proposals) expect(number uint64, batch []*proposal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		s.finishLocked(batch, answer{err: fmt.Errorf("%w: %w", ErrUnknownOutcome, s.ended)})
		return false
	}
	s.batches[number] = batch
	return true
}

// refuse answers proposals with an error. number is that of the batch that they are and
// that raft did not take, 0 if they are none yet.
func (s *proposals) refuse(number uint64, list []*proposal, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.batches, number)
	s.finishLocked(list, answer{err: err})
}

// answer tells those who wait for a batch what became of it.
func (s *proposals) answer(a state.Applied) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range s.batches[a.Number] {
		s.finishLocked([]*proposal{p}, answer{outcome: a.Outcomes[i]})
	}
	delete(s.batches, a.Number)
}

// end admits no more. Batches under way may still be answered.
func (s *proposals) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = why
}

// drop answers every batch under way with an error.
func (s *proposals) drop(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for number, batch := range s.batches {
		s.finishLocked(batch, answer{err: err})
		delete(s.batches, number)
	}
}

func (s *proposals) usage() (count int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count, s.bytes
}

func (s *proposals) finishLocked(list []*proposal, a answer) {
	for _, p := range list {
		s.count--
		s.bytes -= int64(p.command.Size())
		p.done <- a
	}
}
