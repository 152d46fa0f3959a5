{{- define "k8s-runner.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "k8s-runner.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "k8s-runner.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "k8s-runner.selectorLabels" -}}
app.kubernetes.io/name: {{ include "k8s-runner.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "k8s-runner.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "k8s-runner.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "k8s-runner.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "k8s-runner.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "k8s-runner.image" -}}
{{- $image := .Values.image }}
{{- $registry := default $image.registry .Values.global.imageRegistry }}
{{- $name := ternary $image.repository (printf "%s/%s" $registry $image.repository) (empty $registry) }}
{{- if $image.digest }}
{{- printf "%s@%s" $name $image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion $image.tag | toString) }}
{{- end }}
{{- end }}

{{/* Pull Secrets, each once, whether given as a name or as {name: …}. */}}
{{- define "k8s-runner.pullSecrets" -}}
{{- $names := list }}
{{- range concat (.Values.global.imagePullSecrets | default list) (.Values.image.pullSecrets | default list) }}
{{- if kindIs "string" . }}{{- $names = append $names . }}{{- else }}{{- $names = append $names .name }}{{- end }}
{{- end }}
{{- range $names | uniq }}
- name: {{ . }}
{{- end }}
{{- end }}

{{/*
The namespace of the workloads. It stands in two values, since the runner reads it from its environment and the chart puts
rights and policies there: whichever was changed from the default is meant; two different changes are an error.
*/}}
{{- define "k8s-runner.workloadNamespace" -}}
{{- $default := "agyn-workloads" }}
{{- $ours := .Values.workloadNamespace | default $default }}
{{- $theirs := "" }}
{{- range concat (.Values.env | default list) (.Values.extraEnvVars | default list) }}
{{- if and (eq .name "KUBE_NAMESPACE") .value }}{{- $theirs = .value }}{{- end }}
{{- end }}
{{- if or (empty $theirs) (eq $ours $theirs) (eq $theirs $default) }}
{{- $ours }}
{{- else if eq $ours $default }}
{{- $theirs }}
{{- else }}
{{- fail (printf "workloadNamespace is %q and the environment variable KUBE_NAMESPACE is %q: name one namespace" $ours $theirs) }}
{{- end }}
{{- end }}

{{/* The container's environment as a list, each name once: what the chart itself knows, then `env`, then `extraEnvVars`. */}}
{{- define "k8s-runner.env" -}}
{{- $namespace := include "k8s-runner.workloadNamespace" . }}
{{- $own := list (dict "name" "KUBE_NAMESPACE" "value" $namespace) }}
{{- if .Values.catalog }}
{{- $own = append $own (dict "name" "CATALOG_PATH" "value" .Values.catalogPath) }}
{{- end }}
{{- if .Values.workloadPodTemplate }}
{{- $own = append $own (dict "name" "WORKLOAD_POD_TEMPLATE" "value" "/etc/k8s-runner/pod-template/pod-template.yaml") }}
{{- end }}
{{- if and .Values.tls.requireClientCertificate (not .Values.tls.enabled) }}
{{- fail "tls.requireClientCertificate needs tls.enabled: without TLS nobody shows a certificate" }}
{{- end }}
{{- if .Values.tls.enabled }}
{{- $own = append $own (dict "name" "TLS_CERT_FILE" "value" "/etc/k8s-runner/tls/tls.crt") }}
{{- $own = append $own (dict "name" "TLS_KEY_FILE" "value" "/etc/k8s-runner/tls/tls.key") }}
{{- if .Values.tls.requireClientCertificate }}
{{- $own = append $own (dict "name" "TLS_CLIENT_CA_FILE" "value" "/etc/k8s-runner/tls/ca.crt") }}
{{- end }}
{{- end }}
{{- $given := concat (.Values.env | default list) (.Values.extraEnvVars | default list) }}
{{- $last := dict }}
{{- range $given }}{{- $_ := set $last .name . }}{{- end }}
{{- range $own }}
{{- if not (hasKey $last .name) }}{{- $given = append $given . }}{{- $_ := set $last .name . }}{{- end }}
{{- end }}
{{- $seen := dict }}
{{- range $given }}
{{- if not (hasKey $seen .name) }}
{{- $_ := set $seen .name true }}
{{- $entry := get $last .name }}
{{- if and (eq .name "KUBE_NAMESPACE") $entry.value }}{{- $entry = dict "name" .name "value" $namespace }}{{- end }}
- {{ toYaml $entry | nindent 2 | trim }}
{{- end }}
{{- end }}
{{- end }}

{{/*
A probe is always rendered: tools remove them by JSON patch, which fails where there is none. Takes the root and the probe. Of the
runner's own port, a kubelet asks by HTTPS where TLS is on; it has no TLS for gRPC, and no certificate to show.
*/}}
{{- define "k8s-runner.probe" -}}
{{- $tls := (index . 0).Values.tls }}
{{- $probe := omit (index . 1 | default dict) "enabled" }}
{{- if and $tls.enabled $probe.grpc }}
{{- fail "a grpc probe cannot speak TLS: with tls.enabled, use tcpSocket, or httpGet of /healthz and /readyz" }}
{{- end }}
{{- with $probe.httpGet }}
{{- if and $tls.enabled (has (toString .port) (list "grpc" "50051")) }}
{{- if $tls.requireClientCertificate }}
{{- fail "an httpGet probe has no certificate to show: with tls.requireClientCertificate, use tcpSocket" }}
{{- end }}
{{- $probe = set $probe "httpGet" (merge (dict) . (dict "scheme" "HTTPS")) }}
{{- end }}
{{- end }}
{{- if or $probe.httpGet $probe.grpc $probe.exec }}
{{- $probe = omit $probe "tcpSocket" }}
{{- else if not $probe.tcpSocket }}
{{- $probe = merge (dict "tcpSocket" (dict "port" "grpc")) $probe }}
{{- end }}
{{- toYaml $probe }}
{{- end }}

{{- define "k8s-runner.podTemplate" -}}
{{- toYaml (merge (dict "apiVersion" "v1" "kind" "Pod") .Values.workloadPodTemplate) }}
{{- end }}

{{/* Two runners of one token take each other's OpenZiti identity at every start: see the value `replicaCount`. */}}
{{- define "k8s-runner.checkReplicas" -}}
{{- $most := ternary .Values.autoscaling.maxReplicas .Values.replicaCount .Values.autoscaling.enabled }}
{{- range concat (.Values.env | default list) (.Values.extraEnvVars | default list) }}
{{- if and (eq .name "ZITI_ENABLED") (has (toString .value) (list "1" "t" "T" "TRUE" "true" "True")) (gt (int $most) 1) }}
{{- fail "ZITI_ENABLED needs replicaCount 1 and no autoscaling: each start of a runner takes the OpenZiti identity of the one before it" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "k8s-runner.mounts" -}}
{{- if .Values.catalog }}
- name: runner-catalog
  mountPath: {{ dir .Values.catalogPath }}
  readOnly: true
{{- end }}
{{- if .Values.workloadPodTemplate }}
- name: workload-pod-template
  mountPath: /etc/k8s-runner/pod-template
  readOnly: true
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  mountPath: /etc/k8s-runner/tls
  readOnly: true
{{- end }}
{{- range .Values.configMounts }}
- name: {{ .name }}
  mountPath: {{ .mountPath }}
  {{- with .subPath }}
  subPath: {{ . }}
  {{- end }}
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "k8s-runner.volumes" -}}
{{- if .Values.catalog }}
- name: runner-catalog
  configMap:
    name: {{ include "k8s-runner.fullname" . }}-catalog
{{- end }}
{{- if .Values.workloadPodTemplate }}
- name: workload-pod-template
  configMap:
    name: {{ include "k8s-runner.fullname" . }}-pod-template
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ required "tls.secretName is required when tls.enabled is true" .Values.tls.secretName }}
{{- end }}
{{- range .Values.configMounts }}
- name: {{ .name }}
  {{- if .configMap }}
  configMap:
    name: {{ .configMap }}
  {{- else }}
  secret:
    secretName: {{ required (printf "configMounts[%s].configMap or .secret is required" .name) .secret }}
  {{- end }}
    {{- with .items }}
    items:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if .optional }}
    optional: true
    {{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "k8s-runner.dnsRule" -}}
- to:
    - namespaceSelector:
        {{- toYaml .namespaceSelector | nindent 8 }}
      podSelector:
        {{- toYaml .podSelector | nindent 8 }}
  ports:
    - protocol: UDP
      port: 53
    - protocol: TCP
      port: 53
{{- end }}

{{/* OpenZiti's controllers and routers, of the present form and the two older ones, as JSON: [{cidrs, selectors, port}]. */}}
{{- define "k8s-runner.underlay" -}}
{{- $endpoints := list }}
{{- range $old := list "zitiControllerEnrollment" "zitiRuntimeIngressGateway" }}
{{- $endpoint := get $ $old }}
{{- if $endpoint.enabled }}
{{- $endpoints = append $endpoints (dict "label" (printf "workloadEgressNetworkPolicy.%s" $old) "at" $endpoint) }}
{{- end }}
{{- end }}
{{- range .zitiUnderlay.endpoints }}
{{- $label := printf "workloadEgressNetworkPolicy.zitiUnderlay.endpoints[%s]" (toString .name) }}
{{- $endpoints = append $endpoints (dict "label" $label "at" .) }}
{{- end }}
{{- $rules := list }}
{{- range $endpoints }}
{{- $cidrs := concat (list .at.cidr | compact) (.at.backendCIDRs | default list) }}
{{- $selectors := dict }}
{{- if .at.namespaceSelector }}{{- $_ := set $selectors "namespaceSelector" .at.namespaceSelector }}{{- end }}
{{- if .at.podSelector }}{{- $_ := set $selectors "podSelector" .at.podSelector }}{{- end }}
{{- if and (empty $cidrs) (empty $selectors) }}
{{- fail (printf "%s.cidr, backendCIDRs, or selectors are required" .label) }}
{{- end }}
{{- if not .at.port }}
{{- fail (printf "%s.port is required" .label) }}
{{- end }}
{{- $rules = append $rules (dict "cidrs" $cidrs "selectors" $selectors "port" (int .at.port)) }}
{{- end }}
{{- toJson $rules }}
{{- end }}
