package main

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

// Shell completion of names asks the running `ovs up`; when there is none, or
// it is slow, nothing is offered.
const completionTimeout = time.Second

type completer = func(c *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective)

// completeNames offers vDisks for the first argument, snapshots of that vDisk
// for the second if snapshots is set, and nothing else.
func (a *app) completeNames(snapshots bool) completer {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch {
		case len(args) == 0:
			return a.names(c, false), cobra.ShellCompDirectiveNoFileComp
		case len(args) == 1 && snapshots:
			return a.snapshotNames(c, args[0]), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeSources offers vDisks and NAME@SNAP for the first argument.
func (a *app) completeSources() completer {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.names(c, true), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) names(c *cobra.Command, snapshots bool) (names []cobra.Completion) {
	client, err := a.client()
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

func (a *app) snapshotNames(c *cobra.Command, name string) (names []cobra.Completion) {
	client, err := a.client()
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

// completeOSDs offers the numbers of disks for the first argument.
func (a *app) completeOSDs() completer {
	return a.completeFirst(func(ctx context.Context, client *control.Client) (offers []cobra.Completion) {
		list, _ := client.OSDs(ctx) // none is offered without it
		for _, o := range list {
			offers = append(offers, cobra.CompletionWithDesc(strconv.FormatUint(o.Number, 10), string(o.State)+" "+o.Dir))
		}
		return offers
	})
}

// completePresets offers presets for the first argument.
func (a *app) completePresets() completer {
	return a.completeFirst(func(ctx context.Context, client *control.Client) (offers []cobra.Completion) {
		list, _ := presetsOf(ctx, client) // none is offered without it
		for _, p := range list {
			offers = append(offers, p.Preset.Name)
		}
		return offers
	})
}

// completeFirst offers for the first argument what ask returns.
func (a *app) completeFirst(ask func(context.Context, *control.Client) []cobra.Completion) completer {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		client, err := a.client()
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), completionTimeout)
		defer cancel()
		return ask(ctx, client), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeImage offers vDisks and NAME@SNAP, then files.
func (a *app) completeImage() completer {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return a.names(c, true), cobra.ShellCompDirectiveNoFileComp
		case 1:
			return nil, cobra.ShellCompDirectiveDefault
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeImportFile offers files for the first argument.
func (a *app) completeImportFile() completer {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}
