package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Job is one load under one setting. A pair of its runs gives a pair of each of its
// figures.
type Job struct {
	Name    string
	Setting string
	Series  []*Series

	pairs   int
	longest time.Duration // of a pair
}

// Bench measures.
type Bench interface {
	// Renew replaces the servers of both builds, and their data, by new ones. What a
	// process or a directory has by chance, such as where its memory and its files lie,
	// is then noise that pairs of different rounds show. With the same two processes
	// all the time it would look like a difference between the builds.
	Renew(ctx context.Context) error
	// Pair runs the job's load on both builds, and returns a pair for each of its
	// series. It returns ErrDisturbed if something else used so much of the machine
	// meanwhile that the figures are worth nothing.
	Pair(ctx context.Context, j *Job, newFirst bool) ([]Pair, error)
}

// ErrDisturbed says that a pair does not count.
var ErrDisturbed = errors.New("something else was running")

// Plan is how long pairs are added.
type Plan struct {
	Deadline time.Time // no pair starts that would not have ended then
	Now      func() time.Time
	Say      func(format string, args ...any) // how far it is

	Disturbed, Measured int // pairs that did not count, and that did

	renewal time.Duration // the longest
}

// Run measures round by round, until all is settled or the time is up.
//
// First every job gets its MinPairs, one pair in each round. So a disturbance of a minute hits all jobs
// once, and no job in all of its pairs. Then the jobs that look worse are measured alone, until they are
// known to be worse, or to look so by chance. Then come those that would leave the run undecided, and at
// last those that pass without certainty. The build that is first alternates from pair to pair (A B, B A),
// so that the effect of the first on the second cancels out.
func (p *Plan) Run(ctx context.Context, b Bench, jobs []*Job) error {
	var all []*Series
	for _, j := range jobs {
		all = append(all, j.Series...)
	}
	for round := 1; ; round++ {
		assess(all)
		todo, phase := next(jobs)
		if phase == suspects {
			todo = p.surest(todo)
		}
		if todo = p.thatFit(todo, p.renewal); len(todo) == 0 {
			return nil
		}
		visits := p.visits(todo)
		p.Say("round %d, %s: %d pairs each of %d loads, %v left", round, phase, visits, len(todo), p.left().Round(time.Second))
		start := p.Now()
		if err := b.Renew(ctx); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("start the servers of round %d: %w", round, err)
		}
		p.renewal = max(p.renewal, p.Now().Sub(start))
		if err := p.round(ctx, b, todo, visits); err != nil {
			return err
		}
	}
}

// next is what the next round measures, and why.
func next(jobs []*Job) (todo []*Job, phase string) {
	which := func(of func(*Series) bool) []*Job {
		var some []*Job
		for _, j := range jobs {
			if slices.ContainsFunc(j.Series, of) {
				some = append(some, j)
			}
		}
		return some
	}
	for _, phase := range []struct {
		name string
		of   func(v Verdict, pairs int) bool
	}{
		{"first pairs", func(v Verdict, _ int) bool { return v == TooFew }},
		{suspects, func(v Verdict, pairs int) bool { return v == Doubtful && pairs < suspectPairs }},
		{"what is undecided", func(v Verdict, _ int) bool { return v == Doubtful || v == TooNoisy }},
		{"what is not certain", func(v Verdict, _ int) bool { return v == NoSign }},
	} {
		todo = which(func(s *Series) bool { return phase.of(s.Verdict(), len(s.Pairs)) })
		if len(todo) > 0 {
			return todo, phase.name
		}
	}
	return nil, ""
}

// suspects is the phase of those that look worse.
const suspects = "suspects"

// suspectPairs is how many pairs a figure that looks bad gets before the others go on. By then most
// figures that are worse are called so, and most of the rest look better.
const suspectPairs = 15

// surest are the suspects for which there is time to become sure, the clearest first. If all of a build is
// slower there are too many suspects, and a few more pairs of each would prove nothing.
func (p *Plan) surest(jobs []*Job) []*Job {
	jobs = slices.SortedStableFunc(slices.Values(jobs), func(a, b *Job) int { return cmp.Compare(a.highest(), b.highest()) })
	left := p.left()
	for i, j := range jobs {
		if left -= time.Duration(suspectPairs-j.pairs) * j.longest; left < 0 {
			return jobs[:max(1, i)]
		}
	}
	return jobs
}

// highest is the upper end of the interval of the job's clearest figure.
func (j *Job) highest() float64 {
	high := math.Inf(1)
	for _, s := range j.Series {
		if i, ok := s.Interval(); ok && !s.settled() {
			high = min(high, i.High)
		}
	}
	return high
}

// maxVisits bounds the pairs that a job gets from the same servers, so that
// MinPairs come from two sets of them at least.
const maxVisits = MinPairs - 1

// visits is how many pairs each job of a round gets: enough that renewing the
// servers is a small part of the round.
func (p *Plan) visits(todo []*Job) int {
	var once time.Duration
	for _, j := range todo {
		once += j.longest
	}
	if once == 0 {
		return 1
	}
	return int(min(maxVisits, 1+3*p.renewal/once))
}

func (p *Plan) left() time.Duration { return p.Deadline.Sub(p.Now()) }

// thatFit are the jobs of which a pair can still be finished in time, if it is begun after a while.
func (p *Plan) thatFit(jobs []*Job, after time.Duration) []*Job {
	return slices.DeleteFunc(slices.Clone(jobs), func(j *Job) bool { return after+j.longest >= p.left() })
}

func (p *Plan) round(ctx context.Context, b Bench, todo []*Job, visits int) error {
	for range visits {
		for _, j := range todo {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if len(p.thatFit([]*Job{j}, 0)) == 0 {
				continue
			}
			start := p.Now()
			pairs, err := b.Pair(ctx, j, j.pairs%2 == 1)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			j.longest = max(j.longest, p.Now().Sub(start))
			switch {
			case errors.Is(err, ErrDisturbed):
				p.Disturbed++
			case err != nil:
				// The others go on, with new servers.
				j.fail(err)
				p.Say("%s: %v", j.Name, err)
				return nil
			default:
				p.Measured++
				j.add(pairs)
			}
		}
	}
	return nil
}

// add keeps a pair for the series that still need pairs. A series that was found right gets no more: it
// would be looked at until chance makes it look wrong.
func (j *Job) add(pairs []Pair) {
	j.pairs++
	for i, s := range j.Series {
		if !s.settled() {
			s.Pairs = append(s.Pairs, pairs[i])
		}
	}
}

func (j *Job) fail(err error) {
	for _, s := range j.Series {
		s.Err = err
	}
}
