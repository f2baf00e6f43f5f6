package uring

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestLayouts(t *testing.T) {
	for what, sizes := range map[string][2]uintptr{
		"Submission":           {unsafe.Sizeof(Submission{}), 64},
		"WideSubmission":       {unsafe.Sizeof(WideSubmission{}), 128},
		"completion":           {unsafe.Sizeof(completion{}), 16},
		"ringParams":           {unsafe.Sizeof(ringParams{}), 120},
		"Submission.UserData":  {unsafe.Offsetof(Submission{}.UserData), 32},
		"Submission.Command":   {unsafe.Offsetof(Submission{}.Command), 48},
		"MoreCommand":          {unsafe.Offsetof(WideSubmission{}.MoreCommand), 64},
		"ringParams.sq":        {unsafe.Offsetof(ringParams{}.sq), 40},
		"ringParams.cq":        {unsafe.Offsetof(ringParams{}.cq), 80},
		"ringOffsets.dropped":  {unsafe.Offsetof(ringOffsets{}.droppedOrCQEs), 20},
		"ringOffsets.userAddr": {unsafe.Sizeof(ringOffsets{}), 40},
	} {
		if sizes[0] != sizes[1] {
			t.Errorf("%s: %d, want %d", what, sizes[0], sizes[1])
		}
	}
}

// Both widths: what is pushed comes back, and what is popped does not.
func TestQueues(t *testing.T) {
	t.Run("64 bytes", func(t *testing.T) { queues(t, 0, func(s Submission) Submission { return s }) })
	t.Run("128 bytes", func(t *testing.T) {
		queues(t, SQE128, func(s Submission) WideSubmission { return WideSubmission{Submission: s} })
	})
}

const opNop = 0 // IORING_OP_NOP

func queues[S Submission | WideSubmission](t *testing.T, flags uint32, of func(Submission) S) {
	var q Queues[S]
	fd, err := q.Open(8, flags)
	if err != nil {
		t.Skip("no io_uring here: ", err)
	}
	defer unix.Close(fd)
	defer q.Unmap()
	for round := range uint64(5) { // round the ends of both queues
		for i := range uint64(8) {
			q.Push(of(Submission{Opcode: opNop, UserData: round*8 + i}))
		}
		q.Pop()
		if n, err := q.EnterAndWait(7, 7); n != 7 || err != nil {
			t.Fatal(n, err)
		}
		for i := range uint64(7) {
			if got, res, ok := q.Complete(); got != round*8+i || res != 0 || !ok {
				t.Fatalf("round %d: completion %d is %d, %d, %v", round, i, got, res, ok)
			}
		}
		if _, _, ok := q.Complete(); ok {
			t.Fatal("what was taken back came back")
		}
	}
}
