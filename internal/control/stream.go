package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// item is a line of an answer that has any number of them, before the last line.
type item[Item any] struct {
	Item *Item `json:"item,omitempty"`
}

// itemMax bounds a line of such an answer, as the client takes it: a revision can set many
// keys, each of 8 MiB.
const itemMax = 128 << 20

// errUnread ends a call whose client does not take what it is told.
var errUnread = errors.New("the client does not read the answer")

// handleStream routes a call that answers with many lines. Such a call has a place of its
// own beside the one of any call, as it may go on for ever, and ends when the server is about
// to stop.
func handleStream[Request, Item, Result any](s *Server, mux *http.ServeMux, call string, fn func(context.Context, Request, func(Item) error) (Result, error)) {
	answering(s, mux, call, func(ctx context.Context, r Request, out *answer) (Result, error) {
		var none Result
		select {
		case s.streams <- struct{}{}:
			defer func() { <-s.streams }()
		default:
			return none, fmt.Errorf("%w: %d watches and backups are running; try again later", ErrBusy, cap(s.streams))
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(s.leaving, func() { cancel(errStopping) })()
		result, err := fn(ctx, r, func(i Item) error {
			if err := out.item(item[Item]{&i}); err != nil {
				return err
			}
			return ctx.Err()
		})
		if err != nil && errors.Is(context.Cause(ctx), errStopping) {
			err = errStopping
		}
		return result, err
	})
}

// item writes a line that is not the last one, and tells whether the client takes it.
func (a *answer) item(v any) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	control := http.NewResponseController(a.w)
	_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
	if !a.mu.begun {
		a.mu.begun = true
		a.w.WriteHeader(http.StatusOK)
	}
	if _, err = a.w.Write(append(b, '\n')); err == nil {
		err = control.Flush()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUnread, err)
	}
	return nil
}

// callStream is call with an answer of many lines, of which fn is told in order. If fn fails
// the call is given up.
func callStream[Item, Result any](ctx context.Context, c *Client, name string, request any, fn func(Item) error) (Result, error) {
	var none Result
	if err := c.follow(ctx); err != nil {
		return none, err
	}
	response, err := post(ctx, c, name, request)
	if err != nil {
		return none, err
	}
	defer response.Body.Close()
	lines := bufio.NewReaderSize(response.Body, 64<<10)
	for {
		text, err := readLine(lines)
		if err != nil {
			return none, c.cut(ctx, name, err)
		}
		var l struct {
			item[Item]
			line[Result]
		}
		if err := json.Unmarshal(text, &l); err != nil {
			return none, fmt.Errorf("answer of ovs up on %s to %s: %w", c.socket, name, err)
		}
		switch {
		case l.Error != nil:
			return none, fromWire(*l.Error)
		case l.Result != nil:
			return *l.Result, nil
		case l.Item != nil:
			if err := fn(*l.Item); err != nil {
				return none, err
			}
		}
	}
}

// readLine reads a line of up to itemMax bytes.
func readLine(r *bufio.Reader) (text []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if text = append(text, part...); len(text) > itemMax {
			return nil, fmt.Errorf("a line of more than %d bytes", itemMax)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return text, err
	}
}
