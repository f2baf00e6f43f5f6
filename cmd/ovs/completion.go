package main

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

// completionTimeout bounds the wait for names from the running `ovs up`. If there is none, or it
// is slow, nothing is offered: an error message would garble the command line that is being
// typed.
const completionTimeout = time.Second

// offers answers what a shell asks to complete, by asking `ovs up` with client.
type offers struct {
	client func() (*control.Client, error)
}

type completer = func(c *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective)

// names offers vDisks for the first argument and, if snapshots is set, the snapshots
// of that vDisk for the second.
func (o offers) names(snapshots bool) completer {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch {
		case len(args) == 0:
			return o.vdisks(c, false), cobra.ShellCompDirectiveNoFileComp
		case len(args) == 1 && snapshots:
			return o.snapshots(c, args[0]), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// sources offers vDisks and NAME@SNAP for the first argument.
func (o offers) sources() completer {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return o.vdisks(c, true), cobra.ShellCompDirectiveNoFileComp
	}
}

// vdisks are the names of the vDisks and, if snapshots is set, NAME@SNAP of each
// snapshot.
func (o offers) vdisks(c *cobra.Command, snapshots bool) (names []cobra.Completion) {
	client, err := o.client()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.Context(), completionTimeout)
	defer cancel()
	list, err := client.List(ctx)
	if err != nil {
		return nil
	}
	for _, v := range list {
		names = append(names, v.Name)
		for _, s := range v.Snapshots {
			if snapshots {
				names = append(names, v.Name+"@"+s.Name)
			}
		}
	}
	return names
}

// snapshots are the names of the snapshots of one vDisk.
func (o offers) snapshots(c *cobra.Command, name string) (names []cobra.Completion) {
	client, err := o.client()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.Context(), completionTimeout)
	defer cancel()
	list, err := client.SnapshotList(ctx, name)
	if err != nil {
		return nil
	}
	for _, s := range list {
		names = append(names, s.Name)
	}
	return names
}

// osds offers the numbers of disks for the first argument.
func (o offers) osds() completer {
	return o.first(func(ctx context.Context, client *control.Client) (offers []cobra.Completion) {
		list, _ := client.OSDs(ctx) // none is offered without it
		for _, o := range list {
			offers = append(offers, cobra.CompletionWithDesc(strconv.FormatUint(o.Number, 10), string(o.State)+" "+o.Dir))
		}
		return offers
	})
}

// presets offers presets for the first argument.
func (o offers) presets() completer {
	return o.first(func(ctx context.Context, client *control.Client) (offers []cobra.Completion) {
		list, _ := presetsOf(ctx, client) // none is offered without it
		for _, p := range list {
			offers = append(offers, p.Preset.Name)
		}
		return offers
	})
}

// first offers what ask returns for the first argument.
func (o offers) first(ask func(context.Context, *control.Client) []cobra.Completion) completer {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		client, err := o.client()
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), completionTimeout)
		defer cancel()
		return ask(ctx, client), cobra.ShellCompDirectiveNoFileComp
	}
}

// images offers vDisks and NAME@SNAP, then files.
func (o offers) images() completer {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return o.vdisks(c, true), cobra.ShellCompDirectiveNoFileComp
		case 1:
			return nil, cobra.ShellCompDirectiveDefault
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// files offers files for the first argument.
func (o offers) files() completer {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}
