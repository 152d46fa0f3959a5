// Command recorder writes down, one JSON line each, every change of the namespace's managed Pods as client-go sees it: what
// the model test compares the runner's own word with. It begins with a line of the version it watches from.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	watchtools "k8s.io/client-go/tools/watch"
)

const selector = "app.kubernetes.io/managed-by=k8s-runner"

// A change is a line of the output; the first one has a version only.
type change struct {
	Type    watch.EventType `json:"type,omitempty"`
	Name    string          `json:"name,omitempty"`
	UID     string          `json:"uid,omitempty"`
	Version string          `json:"version"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: recorder KUBECONFIG NAMESPACE")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := record(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "recorder:", err)
		os.Exit(1)
	}
}

func record(ctx context.Context, kubeconfig, namespace string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	pods := client.CoreV1().Pods(namespace)
	list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(change{Version: list.ResourceVersion}); err != nil {
		return err
	}
	watcher, err := watchtools.NewRetryWatcherWithContext(ctx, list.ResourceVersion, source{pods.Watch})
	if err != nil {
		return err
	}
	defer watcher.Stop()
	for event := range watcher.ResultChan() {
		pod, isPod := event.Object.(*corev1.Pod)
		if !isPod {
			return fmt.Errorf("the watch told %s: %v", event.Type, event.Object)
		}
		if event.Type == watch.Bookmark {
			continue
		}
		if err := out.Encode(change{event.Type, pod.Name, string(pod.UID), pod.ResourceVersion}); err != nil {
			return err
		}
	}
	if ctx.Err() == nil {
		return errors.New("the watch ended")
	}
	return nil // it was interrupted, which is how it is ended
}

// A source begins the watches that a RetryWatcher goes on with.
type source struct {
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
}

func (s source) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.LabelSelector = selector
	return s.watch(ctx, options)
}
