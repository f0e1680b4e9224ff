# What differs between clusters. Copy this file to slurm/site.sh, which git ignores, and edit it there. The job scripts
# run it on the compute node; before ./lab on the login node give: source slurm/site.sh

# module load miniconda academic-ml/fall-2025     # the Python that the environment is built with

# Homes are small (10 GB at Boston University); the environment takes 6.2 GB, models take more.
# project=/projectnb/ds542/$USER
# export RLLAB_VENV=$project/rllab-venv           # the Python environment; a class can share one
# export RLLAB_HOME=$project/rllab                # models that several runs need are trained once, there
# export HF_HOME=$project/huggingface             # models and data sets of the hub; ./lab fetch RECIPE fills it

# export RLLAB_SERVER_VENV=$project/vllm-venv     # vLLM's own environment, for vllm.sbatch and vllm.qsub

# export NCCL_SOCKET_IFNAME=ib0                   # several nodes: the network between them
