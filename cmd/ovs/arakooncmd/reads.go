package arakooncmd

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

// freshness are the flags that say how new a read must be.
type freshness struct {
	local   bool
	atLeast uint64
}

func (f *freshness) flags(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&f.local, "local", false, "as this host's member has it, however old that is, even if it does not lead")
	c.Flags().Uint64Var(&f.atLeast, "at-least", 0, "it must see this `revision`, which a write returned (default all that was answered)")
	c.MarkFlagsMutuallyExclusive("local", "at-least")
	return c
}

// ofKey makes a command about one key.
func (cmds commands) ofKey(use, short string, do func(c *cobra.Command, client *control.GroupsClient, r control.KeyRead) error) *cobra.Command {
	var f freshness
	return f.flags(&cobra.Command{
		Use:               use + " GROUP KEY",
		Short:             short,
		Args:              cmds.Wants("GROUP", "KEY"),
		ValidArgsFunction: cmds.groupsOnly,
		RunE: func(c *cobra.Command, args []string) error {
			key, err := cmds.parse(args[1])
			if err != nil {
				return err
			}
			return cmds.asks(func(c *cobra.Command, client *control.GroupsClient, _ []string) error {
				return do(c, client, control.KeyRead{Group: args[0], Key: key, Local: f.local, AtLeast: f.atLeast})
			})(c, nil)
		},
	})
}

func (cmds commands) get() *cobra.Command {
	return cmds.ofKey("get", "show the value of a key", func(c *cobra.Command, client *control.GroupsClient, r control.KeyRead) error {
		v, err := client.Get(c.Context(), r)
		if err != nil {
			return err
		}
		return cmds.Print(pairOf(v, false), func(w io.Writer) { fmt.Fprintln(w, show(v.Value)) })
	})
}

func (cmds commands) exists() *cobra.Command {
	return cmds.ofKey("exists", "show whether a key is there", func(c *cobra.Command, client *control.GroupsClient, r control.KeyRead) error {
		found, err := client.Exists(c.Context(), r)
		if err != nil {
			return err
		}
		return cmds.Print(map[string]bool{"exists": found}, func(w io.Writer) { fmt.Fprintln(w, found) })
	})
}

func pairOf(v control.KeyValue, keysOnly bool) pair {
	p := pair{Key: show(v.Key)}
	if text := show(v.Value); !keysOnly {
		p.Value = &text
	}
	return p
}

// rangeLimit is how many keys are shown unless another number is asked for.
const rangeLimit = 1000

// ofRange makes a command about the keys of a range, or of a prefix. bounds fills them in from
// the arguments behind the group.
func (cmds commands) ofRange(use, short string, args cobra.PositionalArgs, reverse bool, bounds func(r *control.KeyRange, args []string) error) *cobra.Command {
	var f freshness
	r := control.KeyRange{Reverse: reverse}
	c := f.flags(&cobra.Command{
		Use:               use,
		Short:             short,
		Args:              args,
		ValidArgsFunction: cmds.groupsOnly,
		RunE: func(c *cobra.Command, args []string) error {
			if r.Limit < 0 {
				return cmds.Usage("%s: --limit %d: give 0 or more", c.CommandPath(), r.Limit)
			}
			r.Group, r.Local, r.AtLeast = args[0], f.local, f.atLeast
			if err := bounds(&r, args[1:]); err != nil {
				return err
			}
			client, err := cmds.Client()
			if err != nil {
				return err
			}
			return cmds.printRange(c, control.OfGroups(client), r)
		},
	})
	c.Flags().IntVar(&r.Limit, "limit", rangeLimit, "show so many keys; 0: all")
	c.Flags().BoolVar(&r.KeysOnly, "keys", false, "show keys only")
	return c
}

// pairs is what a range prints.
type pairs struct {
	Entries []pair `json:"entries"`
	More    bool   `json:"more"`
}

// printRange reads page after page, up to the limit. A page is of one moment.
func (cmds commands) printRange(c *cobra.Command, client *control.GroupsClient, r control.KeyRange) error {
	out, limit := pairs{}, r.Limit
	for {
		page, err := client.Range(c.Context(), r)
		if err != nil {
			return err
		}
		for _, e := range page.Entries {
			out.Entries = append(out.Entries, pairOf(e, r.KeysOnly))
		}
		out.More = page.More
		if !page.More || len(page.Entries) == 0 || limit > 0 && len(out.Entries) >= limit {
			break
		}
		last := page.Entries[len(page.Entries)-1].Key
		if r.Reverse {
			r.Last = last
		} else {
			r.First = append(last[:len(last):len(last)], 0)
		}
		if limit > 0 {
			r.Limit = limit - len(out.Entries)
		}
	}
	return cmds.Print(out, func(w io.Writer) {
		for _, e := range out.Entries {
			if fmt.Fprint(w, e.Key); e.Value != nil {
				fmt.Fprintf(w, "\t%s", *e.Value)
			}
			fmt.Fprintln(w)
		}
		if out.More {
			fmt.Fprintf(w, "(more behind these %d; see --limit)\n", len(out.Entries))
		}
	})
}

func (cmds commands) between(r *control.KeyRange, args []string) (err error) {
	if len(args) > 0 {
		if r.First, err = cmds.parse(args[0]); err != nil {
			return err
		}
	}
	if len(args) > 1 {
		r.Last, err = cmds.parse(args[1])
	}
	return err
}

// upTo checks that there are a group and up to most other arguments.
func (cmds commands) upTo(most int, names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) >= 1 && len(args) <= 1+most {
			return nil
		}
		return cmds.Wants(names...)(c, args)
	}
}

func (cmds commands) scan() *cobra.Command {
	return cmds.ofRange("range GROUP [FIRST [LAST]]", "show the keys from FIRST on and before LAST, ascending", cmds.upTo(2, "GROUP", "FIRST", "LAST"), false, cmds.between)
}

func (cmds commands) revScan() *cobra.Command {
	return cmds.ofRange("rev-range GROUP [FIRST [LAST]]", "show the keys from FIRST on and before LAST, descending", cmds.upTo(2, "GROUP", "FIRST", "LAST"), true, cmds.between)
}

func (cmds commands) prefix() *cobra.Command {
	return cmds.ofRange("prefix GROUP PREFIX", "show the keys with a prefix", cmds.Wants("GROUP", "PREFIX"), false, func(r *control.KeyRange, args []string) (err error) {
		r.Prefix, err = cmds.parse(args[0])
		return err
	})
}

func (cmds commands) count() *cobra.Command {
	var f freshness
	return f.flags(&cobra.Command{
		Use:               "count GROUP [PREFIX]",
		Short:             "count the keys, or those with a prefix",
		Args:              cmds.upTo(1, "GROUP", "PREFIX"),
		ValidArgsFunction: cmds.groupsOnly,
		RunE: func(c *cobra.Command, args []string) (err error) {
			r := control.KeyRange{Group: args[0], Local: f.local, AtLeast: f.atLeast}
			if len(args) > 1 {
				if r.Prefix, err = cmds.parse(args[1]); err != nil {
					return err
				}
			}
			client, err := cmds.Client()
			if err != nil {
				return err
			}
			n, err := control.OfGroups(client).Count(c.Context(), r)
			if err != nil {
				return err
			}
			return cmds.Print(map[string]uint64{"count": n}, func(w io.Writer) { fmt.Fprintln(w, n) })
		},
	})
}

// told is an event as it is printed, one on a line.
type told struct {
	Revision uint64  `json:"revision"`
	Key      string  `json:"key"`
	Value    *string `json:"value,omitempty"` // absent: the key was deleted
}

func (cmds commands) watch() *cobra.Command {
	w := control.KeyWatch{}
	c := &cobra.Command{
		Use:   "watch GROUP [PREFIX]",
		Short: "show what happens to the keys of a group, until it is interrupted",
		Long: `ovs arakoon watch prints a line for each change of a key: the revision, the key and the
new value. With --json each line is a JSON object.`,
		Args:              cmds.upTo(1, "GROUP", "PREFIX"),
		ValidArgsFunction: cmds.groupsOnly,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if w.Group = args[0]; len(args) > 1 {
				if w.Prefix, err = cmds.parse(args[1]); err != nil {
					return err
				}
			}
			client, err := cmds.Client()
			if err != nil {
				return err
			}
			asJSON, _ := c.Flags().GetBool("json")
			return control.OfGroups(client).Watch(c.Context(), w, func(e control.KeyEvents) error { return writeEvents(c.OutOrStdout(), e, asJSON) })
		},
	}
	c.Flags().Uint64Var(&w.From, "from", 0, "begin with this `revision` (default what comes next)")
	return c
}

func writeEvents(out io.Writer, events control.KeyEvents, asJSON bool) error {
	for _, e := range events.Events {
		one := told{Revision: events.Revision, Key: show(e.Key)}
		if text := show(e.Value); !e.Deleted {
			one.Value = &text
		}
		var err error
		switch {
		case asJSON:
			encoder := json.NewEncoder(out)
			encoder.SetEscapeHTML(false)
			err = encoder.Encode(one)
		case e.Deleted:
			_, err = fmt.Fprintf(out, "%d  deleted  %s\n", one.Revision, one.Key)
		default:
			_, err = fmt.Fprintf(out, "%d  set      %s  %s\n", one.Revision, one.Key, *one.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
